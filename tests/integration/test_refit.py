"""A champion that has learned from what the gates ask: its spec, fitted again, stands in for it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.manifests import Questions, Refit, TrainingKind, Verdict
from feature_repo.contracts.places import MANIFEST, Namespace
from feature_repo.contracts.publishing import tree_sha256
from tests.awkward_paths import AWKWARD, LOCAL
from tests.lists_record import lists_record
from tests.mlflow_server import mlflow_server
from tests.model_plane import judge, quick_specs
from tests.training_set_fixture import rewrite_manifest, write_training_set

NAME = "toy.ranking"
FAST = {"fit": {"batch_size": 256, "epochs": 2, "learning_rate": 5e-3}}
SLOW = {"fit": {"batch_size": 256, "epochs": 3, "learning_rate": 5e-3}}
LINEAR = {"name": "linear", "class": "lr", "config": FAST}
BASELINE = {"name": "lr", "role": "baseline", "config": SLOW}
LATER = timedelta(days=20)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Give training sets of a run, `toy`, and of a later cutoff, and questions about the former."""
    from models.settings import Settings

    place = Namespace(tmp_path_factory.mktemp("state") / AWKWARD, "toy")
    for kind, name in ((TrainingKind.RANKING, "{}"), (TrainingKind.LISTS, "{}_lists")):
        ours = write_training_set(place, name.format("toy"), rows=4500, kind=kind)
        theirs = write_training_set(place, name.format("late"), rows=4500, kind=kind, seed=8)
        rewrite_manifest(place, theirs, valid_end=(datetime.fromisoformat(ours.valid_end) + LATER).isoformat())
        if kind is TrainingKind.RANKING:
            origin = datetime.fromisoformat(ours.valid_end) + timedelta(hours=3)
            _ask(place, "asked", origin)
            _ask(place, "nobody", None)
    with mlflow_server(tmp_path_factory.mktemp("mlflow") / LOCAL) as uri:
        yield Settings(
            state=place.state,
            mlflow_uri=uri,
            golden_rows=20,
            golden_users=2,
            golden_candidates=10,
            importance_repeats=1,
        )


def _ask(place, questions_id, origin):
    origins = [] if origin is None else [{"origin": format_cutoff(origin), "role": "test"}]
    names = (questions_id, "toy", {}, "1998-04-23T00:00:00Z", "toy", 30)
    Questions(*names, origins, note="", checksums={}, sources={}).write(place.questions / questions_id / MANIFEST)


@pytest.fixture(scope="module")
def client(settings):
    from models import tracking

    return tracking.connect(settings.mlflow_uri)


def _trained(settings, run_key, *records, training_set="toy", lists=""):
    """Train and choose; return the results by spec, and the choice."""
    from models.training.choose import choose
    from models.training.job import train

    specs = quick_specs(*records, BASELINE)
    runs = {spec.name: train(settings, "toy", training_set, spec, run_key, lists_id=lists) for spec in specs.specs}
    return runs, choose(settings, "toy", training_set, run_key, specs, lists_id=lists)


def _refit(settings, run_key, questions="asked"):
    from models.training.refit import refit

    done = refit(settings, "toy", "toy", run_key, questions)
    return done, Refit.read(Namespace(settings.state, "toy").candidates / run_key / "refit.json")


@pytest.fixture(scope="module")
def late(settings, client):
    """Give the champion's version and run: it has learned from the later training set."""
    runs, chosen = _trained(settings, "late", LINEAR, training_set="late")
    result, _ = judge(settings, "late", "late", runs, chosen)
    client.set_registered_model_alias(NAME, "champion", result["version"])
    return result["version"], runs["linear"]["run_id"]


@pytest.fixture
def own_champion(late, client):
    """Let a test make another version the champion; the late one is again after it."""
    yield lambda version: client.set_registered_model_alias(NAME, "champion", version)
    client.set_registered_model_alias(NAME, "champion", late[0])


@pytest.fixture(scope="module")
def other(settings, late):
    """Give a run of another spec than the champion's, whose spec was fitted again in it."""
    runs, chosen = _trained(settings, "other", {"name": "deep", "class": "deepfm", "config": FAST})
    return runs, chosen, *_refit(settings, "other")


def test_the_spec_of_a_champion_that_knows_the_answers_is_fitted_on_this_runs_rows(other, late, settings, client):
    _, _, done, record = other
    version, run_id = late
    place = Namespace(settings.state, "toy")
    fit = place.candidates / "other" / f"champion-{version}"
    assert (record.version, record.run_id, record.impossible) == (version, run_id, "")
    assert (done["version"], done["needed"], done["training_set"]) == (version, True, "toy")
    assert done["saved_model"] == str(place.root / record.saved_model) == str(fit / "saved_model")
    assert tree_sha256(fit / "saved_model") == record.saved_model_sha256
    assert record.asked_from == record.fitted_until < record.learned_until, "rows are asked about before lists are"
    trained = json.loads((fit / "run.json").read_text())
    assert trained["training_set_id"] == record.training_set_id == "toy"
    theirs = json.loads((place.candidates / "late" / "linear" / "run.json").read_text())
    assert {field: trained["spec"][field] for field in ("class", "config", "features", "rows", "objective")} == {
        field: theirs["spec"][field] for field in ("class", "config", "features", "rows", "objective")
    }
    assert trained["weights_sha256"] != theirs["weights_sha256"]
    tags = client.get_run(trained["run_id"]).data.tags
    assert (tags["kestrel.role"], tags["kestrel.may_be_champion"]) == ("champion", "false")
    choice = json.loads((place.candidates / "other" / "choice.json").read_text())
    assert [each["name"] for each in choice["specs"]] == ["deep", "lr"], "it neither competes nor is a baseline"


def test_a_retry_fits_nothing_a_second_time(other, settings, monkeypatch):
    from models.training import job

    monkeypatch.setattr(job, "fit", lambda *_: pytest.fail("it was fitted twice"))
    assert _refit(settings, "other") == other[2:]


def test_the_fit_is_compared_in_the_champions_name_and_the_verdict_says_so(other, late, settings, client, tmp_path):
    from models.dataset import TEST, read_dataset
    from models.saved_model_loader import SavedModel

    runs, chosen, _, record = other
    result, folder = judge(settings, "other", "toy", runs, chosen)
    named = (
        f"champion version {late[0]} (its spec fitted again on events before {record.fitted_until}, as version "
        f"{late[0]} has learned from events up to {record.learned_until})"
    )
    champion = json.loads((folder / "evaluation.json").read_text())["champion"]
    assert (champion["version"], champion["named"], champion["incomparable"]) == (late[0], named, "")
    test = read_dataset(Namespace(settings.state, "toy").training_sets / "toy", (TEST,))[TEST]
    with np.load(folder / "evaluation_scores.npz") as stored:
        fit = SavedModel(folder / f"champion-{late[0]}" / "saved_model").predict(test.features)
        np.testing.assert_array_equal(stored["test.champion"], fit)
    gates = {gate["name"]: gate for gate in Verdict.read(folder / "verdict.json").gates}
    assert f"than {named}, interval" in gates["auc_vs_champion"]["details"]
    assert gates["auc_vs_champion"]["verdict"] != "not applicable"
    assert f"AUC differs from {named} by" in result["reason"]
    assert result["champion_version"] == late[0]
    page = Path(client.download_artifacts(result["run_id"], "gates/report.html", str(tmp_path)))
    assert f"<dd>{named}</dd>" in page.read_text(encoding="utf-8")


def test_a_fit_that_was_changed_is_not_compared(other, settings):
    from models.errors import CandidateError
    from models.evaluation.job import evaluate

    runs, chosen, _, record = other
    judge(settings, "other", "toy", runs, chosen)
    path = Namespace(settings.state, "toy").root / record.saved_model / "fingerprint.pb"
    before = path.read_bytes()
    path.write_bytes(b"")
    try:
        with pytest.raises(CandidateError, match=r"expected SHA-256 \w+, received \w+; run `python -m models refit"):
            evaluate(settings, "toy", "toy", "other")
    finally:
        path.write_bytes(before)


def test_lists_of_another_champion_than_the_rows_are_refused(other, settings):
    from models.errors import CandidateError
    from models.evaluation.job import evaluate

    runs, chosen, _, record = other
    _, folder = judge(settings, "other", "toy", runs, chosen)
    path, sha256 = folder / "lists.json", runs[chosen["spec"]]["saved_model_sha256"]
    path.write_text(json.dumps(lists_record(saved_model_sha256=sha256) | {"champion": record.named}))
    evaluate(settings, "toy", "toy", "other")
    path.write_text(json.dumps(lists_record(saved_model_sha256=sha256) | {"champion": "champion version 99"}))
    with pytest.raises(CandidateError, match=r"lists of champion version 99: expected those of .* \(its spec"):
        evaluate(settings, "toy", "toy", "other")


@pytest.fixture(scope="module")
def same(settings, late):
    """Give a run that trains the champion's own spec under another name."""
    return _trained(settings, "same", LINEAR | {"name": "renamed"})


def test_a_spec_that_this_run_trains_anyhow_is_not_trained_twice(same, settings, monkeypatch):
    from models.training import refit

    runs, chosen = same
    monkeypatch.setattr(refit, "train", lambda *_, **__: pytest.fail("it was trained twice"))
    done, record = _refit(settings, "same")
    assert done["saved_model"] == runs["renamed"]["saved_model"]
    assert record.saved_model_sha256 == runs["renamed"]["saved_model_sha256"]
    result, folder = judge(settings, "same", "toy", runs, chosen)
    assert chosen["spec"] == "renamed"
    assert result["decision"] == "tie", "the candidate is no better than what the champion's spec gives on equal rows"
    rows = json.loads((folder / "evaluation.json").read_text())["metrics"]["test"]
    assert rows["champion"] == rows["candidate"]


def test_without_a_fit_a_champion_is_not_compared_on_rows_that_it_knows(same, late, settings):
    runs, chosen = same
    folder = Namespace(settings.state, "toy").candidates / "same"
    (folder / "refit.json").unlink(missing_ok=True)
    result, _ = judge(settings, "same", "toy", runs, chosen)
    why = json.loads((folder / "evaluation.json").read_text())["champion"]["incomparable"]
    assert why.startswith(f"champion version {late[0]} cannot be compared on rows: it has learned from events up to ")
    assert "`python -m models refit` fits its spec again" in why
    gates = {gate["name"]: gate["verdict"] for gate in Verdict.read(folder / "verdict.json").gates}
    assert gates["auc_vs_champion"] == "not applicable"
    assert why in result["reason"]


def test_a_record_of_another_champion_counts_nothing(other, settings):
    runs, chosen, _, record = other
    path = Namespace(settings.state, "toy").candidates / "other" / "refit.json"
    replace(record, version="99").write(path)
    try:
        _, folder = judge(settings, "other", "toy", runs, chosen)
    finally:
        record.write(path)
    champion = json.loads((folder / "evaluation.json").read_text())["champion"]
    assert champion["named"] == f"champion version {record.version}"
    assert "it has learned from events up to" in champion["incomparable"]


def test_a_champion_of_earlier_rows_is_compared_itself(same, settings, own_champion):
    runs, chosen = same
    own_champion(judge(settings, "same", "toy", runs, chosen)[0]["version"])
    again, chosen = _trained(settings, "after", {"name": "deep", "class": "deepfm", "config": FAST})
    done, record = _refit(settings, "after")
    assert (done["needed"], done["saved_model"], done["why"], record.needed) == (False, "", "", False)
    _, folder = judge(settings, "after", "toy", again, chosen)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["champion"]["named"] == f"champion version {record.version}"
    assert "champion" in evaluation["metrics"]["test"]
    assert not list(folder.glob("champion-*"))


def test_before_the_first_champion_nothing_is_fitted(same, settings, client, late):
    client.delete_registered_model_alias(NAME, "champion")
    try:
        done, record = _refit(settings, "same")
    finally:
        client.set_registered_model_alias(NAME, "champion", late[0])
    assert (done["version"], done["needed"], record.run_id) == ("", False, "")


def _class_is_gone(monkeypatch):
    from models.ranking import catalogue

    monkeypatch.setattr(catalogue, "RANKING_MODELS", {"deepfm": catalogue.RANKING_MODELS["deepfm"]})


def _run_recorded_no_spec(monkeypatch):
    from models.training import refit

    monkeypatch.setattr(refit, "_SPEC", "spec_of_later.json")


def _feature_is_defined_otherwise(monkeypatch):
    from models.training import refit

    found = refit.training_set_of_champion

    def theirs(*given):
        record = found(*given)
        return replace(record, feature_hashes=record.feature_hashes | {"item_value_mean": "0" * 8})

    monkeypatch.setattr(refit, "training_set_of_champion", theirs)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_class_is_gone, r"model 'lr': expected one of \['deepfm'\]"),
        (_run_recorded_no_spec, r"its run \w+ has no spec_of_later\.json"),
        (_feature_is_defined_otherwise, r"its features \['item_value_mean'\] are gone, or defined otherwise now"),
    ],
)
def test_a_spec_that_cannot_be_fitted_any_longer_leaves_the_champion_out_with_the_reason(
    same, settings, monkeypatch, change, reason
):
    runs, chosen = same
    with monkeypatch.context() as patched:
        change(patched)
        done, record = _refit(settings, "same")
    assert (done["needed"], done["saved_model"], record.saved_model_sha256) == (True, "", "")
    assert re.search(reason, done["impossible"]), done["impossible"]
    _, folder = judge(settings, "same", "toy", runs, chosen)
    why = json.loads((folder / "evaluation.json").read_text())["champion"]["incomparable"]
    assert f"{record.why}; its spec cannot be fitted again: {record.impossible}" in why
    gates = {gate["name"]: gate for gate in Verdict.read(folder / "verdict.json").gates}
    assert (gates["auc_vs_champion"]["verdict"], gates["auc_vs_champion"]["details"]) == ("not applicable", why)


@pytest.fixture(scope="module")
def listed(settings, client, late):
    """Give a champion that learned from lists of the later cutoff, and reads what a channel says."""
    orders = {
        "name": "orders",
        "class": "mlp",
        "rows": "lists",
        "objective": "listwise",
        "features": ["item_activity", "pair_ease_score"],
        "config": FAST | {"embedding_size": 0, "hidden": [4]},
    }
    runs, _ = _trained(settings, "late-lists", LINEAR, orders, training_set="late", lists="late_lists")
    run = json.loads((Path(runs["orders"]["saved_model"]).parent / "run.json").read_text())
    return client.create_model_version(
        NAME, client.get_logged_model(run["model_id"]).artifact_location, run["run_id"], model_id=run["model_id"]
    ).version


def test_a_champion_of_lists_is_fitted_on_this_runs_lists(listed, settings, own_champion):
    own_champion(listed)
    _trained(settings, "with-lists", LINEAR, lists="toy_lists")
    done, record = _refit(settings, "with-lists")
    assert (done["training_set"], record.impossible) == ("toy_lists", "")
    assert record.asked_from > record.fitted_until, "nobody asks it about rows of events: the origin counts"


def test_a_log_too_short_for_lists_cannot_fit_a_champion_of_lists_again(listed, settings, own_champion):
    own_champion(listed)
    _trained(settings, "without-lists", LINEAR)
    assert (
        "it learns from lists, of which this run has no training set"
        in _refit(settings, "without-lists")[0]["impossible"]
    )
    assert not _refit(settings, "without-lists", "nobody")[0]["needed"], "neither lists nor rows ask it anything"


def test_the_command_line_says_what_stands_in(other, settings, monkeypatch):
    from models import __main__ as command_line

    monkeypatch.setattr(command_line, "settings", lambda: settings)
    given = ["refit", "--namespace", "toy", "--training-set", "toy", "--run-key", "other", "--questions"]
    done = CliRunner().invoke(command_line.app, [*given, "asked"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == other[2]
    done = CliRunner().invoke(command_line.app, [*given, "never"])
    assert done.exit_code != 0
    assert "expected questions, received" in done.stderr
