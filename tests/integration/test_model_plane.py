"""train, evaluate and gate against a real MLflow server; the measured lists are made up."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.manifests import Decision, TrainingKind, TrainingSet, Verdict
from feature_repo.contracts.places import Namespace, Serving
from feature_repo.contracts.publishing import tree_sha256, write_json
from feature_repo.contracts.served_models import CHAMPION_RUN_TAG, CHAMPION_VERSION_TAG, WARMUP_FILE
from tests.awkward_paths import AWKWARD, LOCAL
from tests.mlflow_server import mlflow_server
from tests.model_plane import QUICK, judge, loose_margins, quick_specs
from tests.movielens import RANKING, RANKING_FEATURES
from tests.releases import ranker_part, release_of, with_ranker
from tests.training_set_fixture import rewrite_manifest, write_training_set

pytestmark = pytest.mark.in_order  # one registry, and runs that several tests judge anew

NAME, CANDIDATE = "toy.ranking", "deepfm"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("mlflow") / LOCAL) as uri:
        yield uri


@pytest.fixture(scope="module")
def settings(server, tmp_path_factory):
    from models.settings import Settings

    state = tmp_path_factory.mktemp("state") / AWKWARD
    write_training_set(Namespace(state, "toy"), rows=6000)
    write_training_set(Namespace(state, "toy"), "shuffled", rows=6000, shuffle_labels=True)
    return Settings(
        state=state, mlflow_uri=server, golden_rows=20, golden_users=2, golden_candidates=10, importance_repeats=1
    )


@pytest.fixture(scope="module")
def client(server):
    from models import tracking

    return tracking.connect(server)


def _run(settings, run_key, training_set="toy", specs=None, margins=None):
    """Train, choose, evaluate and gate, as the DAG does where no lists can be learned from."""
    from models.training.choose import choose
    from models.training.job import train

    specs = specs or quick_specs()
    runs = {spec.name: train(settings, "toy", training_set, spec, run_key) for spec in specs.specs}
    chosen = choose(settings, "toy", training_set, run_key, specs)
    return runs, *judge(settings, run_key, training_set, runs, chosen, margins=margins)


@pytest.fixture(scope="module")
def first(settings):
    return _run(settings, "first")


def test_the_first_candidate_is_registered_with_its_verdict(first, settings, client):
    runs, result, folder = first
    assert result["decision"] == "promote"
    version = client.get_model_version(NAME, result["version"])
    assert version.run_id == runs[CANDIDATE]["run_id"]
    assert version.tags["kestrel.decision"] == "promote"
    assert version.tags["kestrel.training_set_id"] == "toy"
    assert version.tags["kestrel.reason"] == result["reason"]
    assert (version.tags[CHAMPION_VERSION_TAG], version.tags[CHAMPION_RUN_TAG]) == ("", ""), "there was none"
    verdict = Verdict.read(folder / "verdict.json")
    assert verdict.decision is Decision.PROMOTE
    assert [gate for gate in verdict.gates if gate["verdict"] == "fail"] == []


def test_the_registered_version_holds_the_very_bytes_that_training_wrote(first, client, tmp_path):
    import mlflow

    runs, result, folder = first
    root = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{result['version']}", dst_path=str(tmp_path)))
    digest = tree_sha256(root / "saved_model")
    assert digest == tree_sha256(folder / CANDIDATE / "saved_model") == runs[CANDIDATE]["saved_model_sha256"]
    assert digest == client.get_model_version(NAME, result["version"]).tags["kestrel.saved_model_sha256"]


def test_the_run_holds_parameters_epochs_lineage_and_reports(first, client, tmp_path):
    runs, _, folder = first
    run_id = runs[CANDIDATE]["run_id"]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["batch_size"] == "256"
    assert {"test_auc", "test_as_of_refresh_auc", "test_gauc", "test_log_loss"} <= run.data.metrics.keys()
    assert {"valid_auc", "valid_gauc", "valid_log_loss", "valid_ece"} <= run.data.metrics.keys()
    assert len(client.get_metric_history(run_id, "val_auc")) > 1
    assert run.inputs.dataset_inputs[0].dataset.name == "toy"
    found = {
        file.path
        for folder_name in ("", "plots", "gates", "lists", "card")
        for file in client.list_artifacts(run_id, folder_name or None)
    }
    assert {
        *("training_set.json", "golden.json", "evaluation.json", "gates/verdict.json", "gates/report.html"),
        *("gates/report.json", "plots/validation_roc.png", "plots/validation_calibration.png"),
        *("plots/comparison_roc.png", "plots/importance.png", "spec.json", "card/model_card.html"),
        *("lists/lists.json", "lists/report.html", "lists/table.json"),
    } <= found
    manifest = client.download_artifacts(run_id, "training_set.json", str(tmp_path))
    assert TrainingSet.read(Path(manifest)).training_set_id == "toy"
    report = Path(client.download_artifacts(run_id, "gates/report.html", str(tmp_path))).read_text(encoding="utf-8")
    assert "auc_vs_means" in report
    assert "<svg" in report
    assert "src=" not in report  # it needs nothing else
    assert "The candidate&#39;s lists" in report
    assert "slices/user_history/known/gauc" in run.data.metrics
    assert "item_embedding/embeddings" in report
    golden = json.loads((folder / "golden.json").read_text())
    assert [len(request["score"]) for request in golden["requests"]] == [20, 10, 10]


def test_a_version_has_a_card_that_its_description_links(first, client, tmp_path):
    from models.code_version import code_version

    runs, result, folder = first
    run = client.get_run(runs[CANDIDATE]["run_id"])
    link = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/card/model_card.html"
    description = client.get_model_version(NAME, result["version"]).description
    assert description == f"{result['reason']}\n\n[Model card]({link})"
    card = Path(client.download_artifacts(run.info.run_id, "card/model_card.html", str(tmp_path))).read_text("utf-8")
    evaluation = json.loads((folder / "evaluation.json").read_text())
    known = next(each for each in evaluation["slices"]["user_history"] if each["slice"] == "known")
    for expected in (
        f"version {result['version']}",
        "item_release_year",
        f"{known['figures']['candidate']['gauc']:.4f}",
        code_version()["lock_sha256"],
        runs[CANDIDATE]["saved_model_sha256"],
        "there is no champion yet",
    ):
        assert expected in card
    assert run.data.tags["kestrel.lock_sha256"] == code_version()["lock_sha256"]


def test_the_lists_are_in_the_record_and_in_the_run_once_however_often_it_is_evaluated(first, settings, client):
    from models.evaluation.job import evaluate
    from models.evaluation.lists import table

    runs, _, folder = first
    run_id = runs[CANDIDATE]["run_id"]
    evaluate(settings, "toy", "toy", "first")
    lists = json.loads((folder / "evaluation.json").read_text())["lists"]
    assert lists == json.loads((folder / "lists.json").read_text())
    rows = {row["list"]: row for row in lists["tables"][0]["rows"]}
    for name, row in {"candidate": rows["candidate"], "best_simple": rows[lists["best_simple"]]}.items():
        (metric,) = client.get_metric_history(run_id, f"lists_{name}_ndcg_at_10")
        assert metric.value == row["ndcg_at_10"]
    run = client.get_run(run_id)
    shown = client.load_table(run.info.experiment_id, "lists/table.json", run_ids=[run_id])
    assert list(shown.columns) == table(lists)["columns"]
    assert len(shown) == len(table(lists)["data"])
    logged = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert logged == [{"path": "lists/table.json", "type": "table"}]


def test_without_measured_lists_nothing_is_evaluated(first, settings):
    from models.errors import CandidateError
    from models.evaluation.job import evaluate

    folder = Namespace(settings.state, "toy").candidates
    shutil.copytree(folder / "first", folder / "unmeasured", ignore=shutil.ignore_patterns("lists.json"))
    with pytest.raises(CandidateError, match=r"serving\.lists measure.*run it first"):
        evaluate(settings, "toy", "toy", "unmeasured")


def test_pyfunc_predicts_from_a_data_frame(first, settings, client):
    import mlflow

    from models.dataset import TEST, read_dataset
    from models.training.job import example_frame

    _, result, folder = first
    dataset = read_dataset(Namespace(settings.state, "toy").training_sets / "toy")
    frame = example_frame(dataset[TEST], tuple(column.name for column in RANKING.input_columns))
    model = mlflow.pyfunc.load_model(f"models:/{NAME}/{result['version']}")
    with np.load(folder / "evaluation_scores.npz") as stored:
        np.testing.assert_allclose(model.predict(frame), stored[f"{TEST}.candidate"][-3:], atol=1e-6)
    assert model.metadata.signature.inputs.input_names() == [column.name for column in RANKING.input_columns]


def test_a_retry_of_every_job_changes_nothing(first, settings, client):
    runs, result, _ = first
    again, second, _ = _run(settings, "first")
    assert again == runs
    assert second == result
    assert len(client.search_model_versions(f"name = '{NAME}' and run_id = '{runs[CANDIDATE]['run_id']}'")) == 1


def test_a_gate_that_is_cut_off_leaves_nothing_that_could_be_rolled_out_beside_another_champion(
    first, settings, monkeypatch
):
    from models import registry
    from models.gates.job import gate

    real, seen = registry.register, {}

    def register(*arguments, tags, **options):
        seen.update(tags)
        return real(*arguments, tags=tags, **options)

    monkeypatch.setattr(registry, "register", register)
    gate(settings, "toy", "toy", "first", loose_margins())
    order = ["kestrel.decision", CHAMPION_VERSION_TAG, CHAMPION_RUN_TAG, "kestrel.saved_model_sha256"]
    assert [tag for tag in seen if tag in order] == order, "without the checksum no step of a rollout takes it up"


def test_a_half_done_run_of_the_same_key_is_replaced(first, settings, client):
    from models import tracking
    from models.training.job import train

    left = tracking.replace_run(client, "toy", name="half", run_key="half", model="lr", tags={})
    spec = quick_specs({"name": "lr", "config": {"fit": {"batch_size": 512, "epochs": 1}}}).named("lr")
    result = train(settings, "toy", "toy", spec, "half")
    assert [run.info.run_id for run in tracking.runs_of(client, "toy", "half", "lr")] == [result["run_id"]]
    assert client.get_run(left.info.run_id).info.lifecycle_stage == "deleted"


def test_a_run_key_belongs_to_one_config_of_a_spec(first, settings):
    from models.errors import CandidateError
    from models.training.job import train

    other = quick_specs({"name": "lr", "role": "baseline", "config": {"l2": 0.5}}).named("lr")
    with pytest.raises(CandidateError, match=r"run key first: its lr was trained by .*received .*use another"):
        train(settings, "toy", "toy", other, "first")


@pytest.mark.timeout(900)
def test_several_specs_of_one_class_train_in_one_run_and_test_rows_are_for_the_chosen_one(settings, client):
    specs = quick_specs(
        {"name": "steady", "class": "lr"},
        # It learns next to nothing, and so loses.
        {"name": "hasty", "class": "lr", "config": {"fit": {"epochs": 1, "learning_rate": 1e-7}}},
        {"name": "lr", "role": "baseline", "config": QUICK | {"l2": 0.01}},
    )
    runs, result, folder = _run(settings, "several", specs=specs)
    choice = json.loads((folder / "choice.json").read_text())
    assert choice["spec"]["name"] == "steady"
    assert [(each["name"], each["competed"]) for each in choice["specs"]] == [
        ("steady", True),
        ("hasty", True),
        ("lr", False),
    ]
    logged = {name: client.get_run(run["run_id"]).data for name, run in runs.items()}
    assert len({run["run_id"] for run in runs.values()}) == 3
    assert {name: data.tags["kestrel.chosen"] for name, data in logged.items()} == {
        "steady": "true",
        "hasty": "false",
        "lr": "false",
    }
    assert {name: (data.tags["kestrel.model"], data.tags["kestrel.class"]) for name, data in logged.items()} == {
        "steady": ("steady", "lr"),
        "hasty": ("hasty", "lr"),
        "lr": ("lr", "lr"),
    }
    assert {name for name, data in logged.items() if "test_auc" in data.metrics} == {"steady", "lr"}
    assert all("valid_log_loss" in data.metrics for data in logged.values())
    rows = json.loads((folder / "evaluation.json").read_text())["metrics"]["test"]
    assert list(rows) == ["candidate", "lr", "means", "popularity"]
    version = client.get_model_version(NAME, result["version"])
    assert (version.run_id, version.tags["kestrel.model"]) == (runs["steady"]["run_id"], "steady")


@pytest.mark.timeout(900)
def test_models_that_fit_themselves_are_tracked_by_what_their_fits_have(settings, client, monkeypatch):
    """Without epochs there is no curve, and no parameter that speaks of any."""
    from models.ranking.catalogue import RANKING_MODELS
    from models.specs.spec import parse_spec
    from models.training.job import train
    from tests.small_models import OTHERS

    runs = {}
    for model_class in OTHERS:
        monkeypatch.setitem(RANKING_MODELS, model_class.name, model_class)
        result = train(settings, "toy", "toy", parse_spec({"name": model_class.name}).whole(), "otherwise")
        runs[model_class.name] = client.get_run(result["run_id"])
    for run in runs.values():
        assert run.info.status == "FINISHED"
        assert {"valid_auc", "valid_log_loss", "fit_seconds"} <= run.data.metrics.keys()
        assert run.data.params.keys() >= {"spec", "seed", "weights", "rows_train"}
    assert not {"epochs", "best_epoch", "batch_size"} & (runs["ridge"].data.params | runs["stumps"].data.params).keys()
    assert "log_loss" not in runs["ridge"].data.metrics, "a closed form has no history"
    curve = client.get_metric_history(runs["stumps"].info.run_id, "log_loss")
    assert [metric.step for metric in curve] == list(range(1, 13))
    assert curve[-1].value < curve[0].value
    assert runs["stumps"].data.params["trees"] == "12"
    assert {"alone_val_log_loss", "val_log_loss"} <= runs["two_stages"].data.metrics.keys()
    assert runs["two_stages"].data.params["best_epoch_alone"] == "1"


def test_the_champion_may_be_of_a_class_that_no_candidate_has(settings, client):
    """A log on which DeepFM truly wins, by the shipped margins of rows; then logistic regression challenges it."""
    from models.gates.margins import read_margins

    margins = read_margins("ranking").model_copy(update={"lists": ()})  # the measured lists are made up
    write_training_set(Namespace(settings.state, "toy"), "ages", rows=12_000, users=400, age_effect=0.5)
    linear = {"name": "lr", "role": "baseline", "config": {}}
    deep = {"name": "deepfm", "config": {"fit": {"epochs": 6}}}
    first = quick_specs(deep, linear | {"may_be_champion": True})
    runs, won, folder = _run(settings, "deep", "ages", first, margins)
    assert json.loads((folder / "choice.json").read_text())["spec"]["name"] == "deepfm", "lr competed and lost"
    assert (won["decision"], won["run_id"]) == ("promote", runs["deepfm"]["run_id"]), won["reason"]
    client.set_registered_model_alias(NAME, "champion", won["version"])
    try:
        later = quick_specs({"name": "linear", "class": "lr", "config": {}}, linear)
        _, lost, folder = _run(settings, "challenger", "ages", later, margins)
    finally:
        client.delete_registered_model_alias(NAME, "champion")
    rows = json.loads((folder / "evaluation.json").read_text())["metrics"]["test"]
    assert list(rows) == ["candidate", "champion", "lr", "means", "popularity"]
    assert rows["champion"]["log_loss"] < rows["candidate"]["log_loss"]
    assert lost["decision"] in {"tie", "reject"}, lost["reason"]


def test_a_training_beside_another_of_its_run_key_is_transient_and_one_of_another_model_is_none(
    first, settings, monkeypatch
):
    from feature_repo.locks import LockedError
    from models.candidate_folder import CandidateFolder
    from models.training import job

    monkeypatch.setattr(job, "fit", lambda *_: pytest.fail("it trains beside another"))
    with CandidateFolder(Namespace(settings.state, "toy"), "first").held("lr"):
        with pytest.raises(LockedError, match="lr of run key first: another job is writing it"):
            job.train(settings, "toy", "toy", quick_specs().named("lr"), "first")
        assert job.train(settings, "toy", "toy", quick_specs().named(CANDIDATE), "first") == first[0][CANDIDATE]


def test_a_training_that_does_not_fit_into_memory_ends_before_it_reads(first, settings, monkeypatch):
    from feature_repo.contracts.memory import Memory
    from models.errors import TooLittleMemoryError
    from models.training import job

    monkeypatch.setattr(job, "memory", lambda: Memory(total=10**8, available=10**8, resident=0))
    monkeypatch.setattr(job, "read_dataset", lambda *_: pytest.fail("it reads what does not fit"))
    with pytest.raises(TooLittleMemoryError, match="training on toy: expected about"):
        job.train(settings, "toy", "toy", quick_specs().named("lr"), "too-large")


@pytest.mark.parametrize("job", ["evaluate", "gate"])
def test_a_judgement_beside_another_of_its_run_key_is_transient(first, settings, monkeypatch, job):
    from models import __main__ as command_line
    from models.candidate_folder import JUDGEMENT, CandidateFolder

    monkeypatch.setattr(command_line, "settings", lambda: settings)
    with CandidateFolder(Namespace(settings.state, "toy"), "first").held(JUDGEMENT):
        done = CliRunner().invoke(
            command_line.app, [job, "--namespace", "toy", "--training-set", "toy", "--run-key", "first"]
        )
    assert done.exit_code == ExitCode.TRANSIENT
    assert "judgement of run key first: another job is writing it" in done.stderr


def test_what_killed_trainings_left_goes_with_the_next_one_whatever_its_run_key(first, settings):
    from models.training.job import train

    left = first[2].parent / "killed" / ".deepfm.a1b2c3d4.part"
    (left / "saved_model").mkdir(parents=True)
    os.utime(left, (0, 0))
    train(settings, "toy", "toy", quick_specs().named("lr"), "first")
    assert not left.exists()


def test_the_same_training_set_again_is_a_tie_with_the_champion(first, settings, client):
    _, result, _ = first
    client.set_registered_model_alias(NAME, "champion", result["version"])
    try:
        _, second, folder = _run(settings, "second")
        evaluation = json.loads((folder / "evaluation.json").read_text())
        assert client.get_model_version_by_alias(NAME, "candidate").version == second["version"]
        assert client.get_model_version_by_alias(NAME, "champion").version == result["version"]
    finally:
        client.delete_registered_model_alias(NAME, "champion")
    assert second["decision"] == "tie"
    assert second["champion_version"] == result["version"]
    tags = client.get_model_version(NAME, second["version"]).tags
    assert (tags[CHAMPION_VERSION_TAG], tags[CHAMPION_RUN_TAG]) == (result["version"], result["run_id"])
    rows = evaluation["metrics"]["test"]
    assert rows["champion"] == rows["candidate"]
    assert evaluation["champion"]["incomparable"] == ""


def test_a_tie_with_a_champion_whose_feature_views_are_gone_is_promoted(first, settings, client):
    _, result, _ = first
    place = Namespace(settings.state, "toy")
    record = write_training_set(place, "widened", rows=6000)
    rewrite_manifest(place, record, views={**record.views, "user_activity": "user_activity_ffffffff"})
    client.set_registered_model_alias(NAME, "champion", result["version"])
    try:
        _, widened, folder = _run(settings, "widened", "widened")
    finally:
        client.delete_registered_model_alias(NAME, "champion")
    champion = json.loads((folder / "evaluation.json").read_text())["champion"]
    assert champion["incomparable"] == ""
    assert champion["retired_views"] == [record.views["user_activity"]]
    assert widened["decision"] == "promote"
    assert "cannot rank any longer" in widened["reason"]


def test_shuffled_labels_are_rejected_and_no_alias_but_candidate_moves(first, settings, client):
    _, result, _ = first
    client.set_registered_model_alias(NAME, "champion", result["version"])
    try:
        _, shuffled, _ = _run(settings, "shuffled", "shuffled")
        assert shuffled["decision"] == "reject"
        assert client.get_model_version_by_alias(NAME, "champion").version == result["version"]
        assert client.get_model_version(NAME, shuffled["version"]).tags["kestrel.decision"] == "reject"
    finally:
        client.delete_registered_model_alias(NAME, "champion")


def test_a_run_key_belongs_to_one_training_set(first, settings):
    from models.errors import CandidateError
    from models.evaluation.job import evaluate

    with pytest.raises(CandidateError, match="a run key names one training run"):
        evaluate(settings, "toy", "shuffled", "first")


def test_a_changed_saved_model_is_not_registered(first, settings):
    from models.errors import CandidateError
    from models.gates.job import gate

    folder = Namespace(settings.state, "toy").candidates
    shutil.copytree(folder / "first", folder / "tampered")
    (folder / "tampered" / CANDIDATE / "saved_model" / "fingerprint.pb").write_bytes(b"")
    with pytest.raises(CandidateError, match="changed after training"):
        gate(settings, "toy", "toy", "tampered")


def test_a_server_that_is_down_is_transient(settings):
    from models.errors import TrackingUnavailableError
    from models.training.job import train

    down = settings.model_copy(update={"mlflow_uri": "http://127.0.0.1:9"})
    try:
        with pytest.raises(TrackingUnavailableError, match="is it up"):
            train(down, "toy", "toy", quick_specs().named("lr"), "nowhere")
    finally:
        from models import tracking

        tracking.connect(settings.mlflow_uri)


@pytest.fixture
def apart(settings, first, tmp_path):
    """Give a state folder with the training set and the first run's results, in which things may be deleted."""
    for part in ("training_sets", "candidates/first"):
        shutil.copytree(Namespace(settings.state, "toy").root / part, Namespace(tmp_path, "toy").root / part)
    return settings.model_copy(update={"state": tmp_path})


def _release(result, runs, version):
    """Return the Release with which a rollout of the first run would have put a version in force."""
    ranker = ranker_part(
        version,
        run_id=str(result["run_id"]),
        checksum=str(runs[CANDIDATE]["saved_model_sha256"]),
        views=RANKING_FEATURES.views,
        inputs=[column.name for column in RANKING.input_columns],
        training_set_id="toy",
    )
    return release_of("toy", ranker, why="every gate passed")


def _champion_of(settings, run_key):
    """Evaluate once more, and return what the record says of the champion."""
    from models.evaluation.job import evaluate

    evaluate(settings, "toy", "toy", run_key)
    folder = Namespace(settings.state, "toy").candidates / run_key
    return json.loads((folder / "evaluation.json").read_text())["champion"]


def test_a_model_whose_versions_count_anew_gets_a_number_that_nothing_served_has(first, apart, client):
    from models.gates.job import gate

    runs, result, _ = first
    serving = Serving(apart.state)
    (serving.model("toy", "ranking") / "7").mkdir(parents=True)
    other = with_ranker(_release(result, runs, "5"), run_id="0" * 32)
    other.write(serving.releases("toy") / "v5.json")
    with_ranker(other, version=result["version"]).write(serving.current_release("toy"))
    again = gate(apart, "toy", "toy", "first")
    assert again["version"] == "8", "another run's release has the number that this run was registered under"
    assert gate(apart, "toy", "toy", "first")["version"] == "8", "a retry finds it"
    version = client.get_model_version(NAME, "8")
    assert version.run_id == result["run_id"]
    assert version.tags["kestrel.saved_model_sha256"] == runs[CANDIDATE]["saved_model_sha256"]
    verdict = Verdict.read(Namespace(apart.state, "toy").candidates / "first" / "verdict.json")
    assert (verdict.version, verdict.run_id) == ("8", result["run_id"])
    client.delete_model_version(NAME, "8")


UNREGISTERED = "99"
"""No test registers so many versions, in whatever order tests run."""


def test_the_champion_is_the_version_in_force_whatever_the_registry_says(first, apart, client):
    runs, result, folder = first
    serving = Serving(apart.state)
    served = serving.model("toy", "ranking") / UNREGISTERED
    shutil.copytree(folder / CANDIDATE / "saved_model", served)
    (served / WARMUP_FILE).parent.mkdir(exist_ok=True)
    (served / WARMUP_FILE).write_bytes(b"")
    pointer = serving.current_release("toy")
    _release(result, runs, UNREGISTERED).write(pointer)
    champion = _champion_of(apart, "first")
    assert (champion["version"], champion["run_id"], champion["incomparable"]) == (UNREGISTERED, result["run_id"], "")
    assert champion["weights_sha256"] == runs[CANDIDATE]["weights_sha256"]

    assert champion["unregistered"]

    (served / "fingerprint.pb").write_bytes(b"")
    assert "neither the registry nor the disk" in _champion_of(apart, "first")["incomparable"]
    _release(result, runs, result["version"]).write(pointer)
    champion = _champion_of(apart, "first")
    assert (champion["incomparable"], champion["unregistered"]) == ("", False), "the registry has it still"
    with_ranker(_release(result, runs, result["version"]), run_id="0" * 32).write(pointer)
    assert "neither the registry nor the disk" in _champion_of(apart, "first")["incomparable"]


def test_a_champion_whose_run_is_gone_is_compared_by_the_training_set_itself(first, apart, client):
    runs, result, folder = first
    serving = Serving(apart.state)
    shutil.copytree(folder / CANDIDATE / "saved_model", serving.model("toy", "ranking") / UNREGISTERED)
    pointer = serving.current_release("toy")
    gone = with_ranker(_release(result, runs, UNREGISTERED), run_id="0" * 32)
    gone.write(pointer)
    champion = _champion_of(apart, "first")
    assert (champion["version"], champion["incomparable"], champion["weights_sha256"]) == (UNREGISTERED, "", "")
    with_ranker(gone, training_set_id="gone").write(pointer)
    assert "training_set.json cannot be read" in _champion_of(apart, "first")["incomparable"]


def test_a_deleted_run_is_logged_to_no_more(first, apart, client):
    from models.errors import DeletedInMlflowError
    from models.evaluation.job import evaluate
    from models.gates.job import gate

    _, result, _ = first
    client.delete_run(result["run_id"])
    try:
        for job in (evaluate, gate):
            with pytest.raises(DeletedInMlflowError, match="it is deleted; bring it back by `MLFLOW_TRACKING_URI=http"):
                job(apart, "toy", "toy", "first")
    finally:
        client.restore_run(result["run_id"])


def test_a_deleted_experiment_ends_training_before_the_fit_with_what_brings_it_back(
    first, settings, client, monkeypatch
):
    from models.errors import DeletedInMlflowError
    from models.training import job

    experiment = client.get_experiment_by_name("kestrel/toy")
    monkeypatch.setattr(job, "fit", lambda *_: pytest.fail("it was fitted for nothing"))
    client.delete_experiment(experiment.experiment_id)
    try:
        with pytest.raises(DeletedInMlflowError, match=f"restore --experiment-id {experiment.experiment_id}`, or"):
            job.train(settings, "toy", "toy", quick_specs().named("lr"), "after-the-deletion")
    finally:
        client.restore_experiment(experiment.experiment_id)


@pytest.fixture(scope="module")
def listed(settings):
    """Train what is shipped, of both kinds of rows, under a run key of its own; return the specs and the results."""
    from models.training.job import train

    write_training_set(Namespace(settings.state, "toy"), "toy_lists", rows=6000, kind=TrainingKind.LISTS)
    specs = quick_specs()
    runs = {spec.name: train(settings, "toy", "toy", spec, "listed", lists_id="toy_lists") for spec in specs.specs}
    return specs, runs


def _compared(settings, runs, figures, **changes):
    """Write what `serving.lists compare` writes of the models that compete, and return the file."""
    competing = [each for each in runs.values() if each["trained"] and each["competes"]]
    lists = {
        each["name"]: {
            "saved_model_sha256": each["saved_model_sha256"],
            "ndcg_at_10": figures[each["name"]],
            "recall_at_10": 0.1,
            "interval": [0.1, 0.3],
            "reranking": {"channel": "ease", "share": 0.2} if each["name"] == "lists" else {},
        }
        for each in competing
        if each["name"] in figures
    }
    record = {
        "namespace": "toy",
        "questions_id": "asked",
        "training_set_ids": sorted({each["training_set"] for each in competing}),
        "origins": ["1998-03-01T00:00:00Z"],
        "users": 40,
        "best_simple": {"name": "ease", "ndcg_at_10": 0.18},
        "unranked": {"ndcg_at_10": 0.15},
        "quotas": {"ease": 60},
        "lists": lists,
        "undefined": {},
    }
    path = settings.state / "validation_lists.json"
    write_json(path, record | changes)
    return path


def _choose(settings, listed, path=None):
    from models.training.choose import choose

    specs, _ = listed
    return choose(settings, "toy", "toy", "listed", specs, lists_id="toy_lists", validation_lists=path)


def test_training_says_what_may_be_compared(listed, settings):
    _, runs = listed
    assert {name: (each["training_set"], each["role"], each["competes"]) for name, each in runs.items()} == {
        "deepfm": ("toy", "candidate", True),
        "lists": ("toy_lists", "candidate", True),
        "lists_linear": ("toy_lists", "baseline", False),
        "lr": ("toy", "baseline", False),
    }
    for name, each in runs.items():
        assert each["name"] == name
        assert tree_sha256(Path(each["saved_model"])) == each["saved_model_sha256"]


def test_what_learns_from_lists_is_not_trained_where_there_are_none(first):
    runs, *_ = first
    assert {name: each["trained"] for name, each in runs.items()} == {
        "deepfm": True,
        "lists": False,
        "lists_linear": False,
        "lr": True,
    }
    assert runs["lists"].keys() == {"name", "trained", "why"}
    assert not (first[2] / "lists").exists()
    choice = json.loads((first[2] / "choice.json").read_text())
    assert choice["policy"] == {"quotas": {}, "reranking": {"channel": "", "share": 0.0}}, "no lists were measured"
    assert choice["untrained"] == ["lists", "lists_linear"]
    assert [each["name"] for each in choice["specs"]] == ["deepfm", "lr"]


def test_the_command_line_takes_no_lists_for_none(first, settings, monkeypatch):
    from models import __main__ as command_line

    monkeypatch.setattr(command_line, "settings", lambda: settings)
    given = ["--namespace", "toy", "--training-set", "toy", "--run-key", "first", "--lists", ""]
    done = CliRunner().invoke(command_line.app, ["train", *given, "--spec", "lists"])
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["name"], result["trained"]) == ("lists", False)
    records = json.dumps([spec.record() for spec in quick_specs().specs])
    choose = ["choose", *given, "--specs", records, "--choose-by", "ndcg_at_10", "--validation-lists", ""]
    done = CliRunner().invoke(command_line.app, choose)
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["spec"], result["choose_by"], result["training_set"]) == ("deepfm", "log_loss", "toy")
    assert "none were asked for" in result["why"]


def test_the_best_lists_win_and_are_judged_by_rows_of_their_kind(listed, settings, client, tmp_path):
    _, runs = listed
    chosen = _choose(settings, listed, _compared(settings, runs, {"deepfm": 0.17, "lists": 0.21}))
    assert (chosen["spec"], chosen["choose_by"], chosen["training_set"]) == ("lists", "ndcg_at_10", "toy_lists")
    assert chosen["figures"] == {"deepfm": 0.17, "lists": 0.21}
    result, folder = judge(settings, "listed", "toy", runs, chosen)
    choice = json.loads((folder / "choice.json").read_text())
    assert (choice["training_set_id"], choice["winner_training_set_id"], choice["why"]) == ("toy", "toy_lists", "")
    for name, figure in (("deepfm", 0.17), ("lists", 0.21)):
        (metric,) = client.get_metric_history(runs[name]["run_id"], "validation_lists_ndcg_at_10")
        assert metric.value == figure
    _choose(settings, listed, settings.state / "validation_lists.json")
    assert len(client.get_metric_history(runs["lists"]["run_id"], "validation_lists_ndcg_at_10")) == 1, "a retry"
    evaluation = json.loads((folder / "evaluation.json").read_text())
    rows = evaluation["metrics"]["test"]
    assert list(rows) == ["candidate", "lists_linear", "lr", "means", "popularity"]
    assert evaluation["left_out"] == {}
    assert evaluation["training_set_id"] == "toy_lists"
    assert (rows["candidate"]["auc"], rows["candidate"]["log_loss"]) == (None, None)
    assert rows["candidate"]["gauc"] > max(rows["means"]["gauc"], 0.8)
    assert rows["lr"]["log_loss"] is not None
    assert result["decision"] == "promote", result["reason"]
    assert "GAUC" in result["reason"]
    verdict = Verdict.read(folder / "verdict.json")
    assert [gate["name"] for gate in verdict.gates[:2]] == ["lists_vs_best_simple", "lists_vs_champion"]
    assert client.get_model_version(NAME, result["version"]).tags["kestrel.training_set_id"] == "toy", "the run's"
    run = client.get_run(runs["lists"]["run_id"])
    assert (run.data.tags["kestrel.training_set_id"], run.data.tags["kestrel.rows"]) == ("toy_lists", "lists")
    policy = {"quotas": {"ease": 60}, "reranking": {"channel": "ease", "share": 0.2}}
    assert json.loads((folder / "policy.json").read_text()) == choice["policy"] == policy
    assert chosen["policy"] == str(folder / "policy.json")
    for name, content in policy.items():
        artifact = client.download_artifacts(runs["lists"]["run_id"], f"release/{name}.json", str(tmp_path))
        assert json.loads(Path(artifact).read_text()) == content
    page = Path(client.download_artifacts(runs["lists"]["run_id"], "gates/report.html", str(tmp_path)))
    report = page.read_text(encoding="utf-8")
    assert "with 20 % of the order of <code>ease</code>; candidates by the quotas <code>ease</code> 60" in report
    assert report.index("lists_vs_best_simple") < report.index("gauc_vs_means")
    assert "ndcg_at_10 of the lists at the validation origin: <code>deepfm</code> 0.1700" in report
    assert "of kind lists" in report
    assert "Curves" not in report, "only a user's own rows are in an order"


def test_a_winner_of_rows_of_events_leaves_out_the_baseline_that_reads_channels(listed, settings):
    _, runs = listed
    chosen = _choose(settings, listed, _compared(settings, runs, {"deepfm": 0.22, "lists": 0.21}))
    assert (chosen["spec"], chosen["training_set"]) == ("deepfm", "toy")
    result, folder = judge(settings, "listed", "toy", runs, chosen)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert list(evaluation["metrics"]["test"]) == ["candidate", "lr", "means", "popularity"]
    assert evaluation["left_out"].keys() == {"lists_linear"}
    assert "rows of kind ranking lack" in evaluation["left_out"]["lists_linear"]
    assert "such as pair_" in evaluation["left_out"]["lists_linear"]
    assert result["decision"] == "promote", result["reason"]


def test_a_champion_that_reads_channels_is_not_compared_on_rows_of_events(listed, settings, client):
    _, runs = listed
    chosen = _choose(settings, listed, _compared(settings, runs, {"deepfm": 0.17, "lists": 0.21}))
    won, _ = judge(settings, "listed", "toy", runs, chosen)
    client.set_registered_model_alias(NAME, "champion", won["version"])
    try:
        _, result, folder = _run(settings, "after-lists")
    finally:
        client.delete_registered_model_alias(NAME, "champion")
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert "of kind ranking, say nothing of 14 pair features that it reads" in evaluation["champion"]["incomparable"]
    assert "champion" not in evaluation["metrics"]["test"]
    gates = {gate["name"]: gate["verdict"] for gate in Verdict.read(folder / "verdict.json").gates}
    assert {gates[f"{metric}_vs_champion"] for metric in ("auc", "gauc", "log_loss", "lists")} == {"not applicable"}
    assert result["champion_version"] == won["version"]


def test_where_no_lists_could_be_measured_rows_decide_and_say_so(listed, settings):
    _, runs = listed
    path = _compared(settings, runs, {}, undefined={"every figure": "nobody was asked"})
    chosen = _choose(settings, listed, path)
    assert (chosen["choose_by"], list(chosen["figures"])) == ("log_loss", ["deepfm"])
    choice = json.loads((Namespace(settings.state, "toy").candidates / "listed" / "choice.json").read_text())
    assert choice["why"] == chosen["why"]
    assert "(nobody was asked), log_loss decides" in choice["why"]
    assert {each["name"]: each["competed"] for each in choice["specs"]}["lists"] is False
    undefined = _choose(settings, listed, _compared(settings, runs, {"deepfm": None, "lists": None}))
    assert (undefined["choose_by"], "(nobody was asked)" in undefined["why"]) == ("log_loss", True)


def test_lists_of_other_models_are_refused(listed, settings):
    from models.errors import CandidateError

    _, runs = listed
    figures = {"deepfm": 0.17, "lists": 0.21}
    with pytest.raises(CandidateError, match=r"expected those of \['lists'\], which compete, received .*\['deepfm'\]"):
        _choose(settings, listed, _compared(settings, runs, {"deepfm": 0.17}))
    absent = _compared(settings, runs, {"deepfm": 0.17}, undefined={"lists": "it answers nothing"})
    assert _choose(settings, listed, absent)["figures"] == {"deepfm": 0.17, "lists": None}
    path = _compared(settings, runs, figures)
    record = json.loads(path.read_text())
    record["lists"]["lists"]["saved_model_sha256"] = "0" * 64
    write_json(path, record)
    with pytest.raises(CandidateError, match=r"lists of lists: expected those of the SavedModel .*, received"):
        _choose(settings, listed, path)
    with pytest.raises(CandidateError, match="expected lists of namespace 'toy', received 'other'"):
        _choose(settings, listed, _compared(settings, runs, figures, namespace="other"))
    with pytest.raises(CandidateError, match=r"serving\.lists compare .*received no file; run it first"):
        _choose(settings, listed, settings.state / "none.json")
