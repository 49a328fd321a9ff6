"""Deliberately bad candidates and bad input, by the jobs' command lines: the gate or the error that is made for it.

Each candidate is the only one. The margins are the shipped ones where they are about the candidate alone. Those of
comparisons are loose, so that it is the gate in question that decides, and nothing but it. Where it is the test rows
that are bad, the fit is the same for all: nothing is learned of them.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import write_json
from tests.lists_record import lists_record
from tests.mlflow_server import mlflow_server
from tests.model_plane import CHECK
from tests.training_set_fixture import write_training_set

TEST_SPLITS = ("test", "test_as_of_refresh")
SPLITS = ("train", "valid", *TEST_SPLITS)
FEATURES = ["user_value_mean", "item_value_mean", "user_value_std", "item_value_std", "user_gender"]
SPEC = {
    "name": "only",
    "class": "deepfm",
    "features": FEATURES,
    "config": {"hidden": [16], "fit": {"batch_size": 512, "epochs": 6, "learning_rate": 1e-2}},
}
APART = {**SPEC, "features": ["user_value_std", "item_value_std", "user_gender"]}
"""Reads copies of what the baseline of means does, so that they can break alone."""
SLOW = {**SPEC, "name": "slow", "config": {"hidden": [2048, 2048], "fit": {"batch_size": 4096, "epochs": 1}}}
OTHER = {**SPEC, "name": "other", "features": FEATURES[:3], "config": {"hidden": [4], "fit": {"epochs": 1}}}
HARDLY_ANY_MS = 1.0
"""Less than 200 rows of four million weights take on any processor: the gate is asked, and not the clock."""
NAME = "toy.ranking"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture
def client(server):
    from models import tracking

    return tracking.connect(server)


def _margins(path, **limits):
    """Write margins that guard against harm to the candidate itself, and ask little of it beside others."""
    from models.gates.margins import read_margins

    shipped = read_margins("ranking").model_dump(mode="json")
    compared = [{"metric": metric, "split": "test", "reference": "means", "margin": 0.4} for metric in ("auc", "gauc")]
    chance = next(each for each in shipped["comparisons"] if each["reference"] == "chance")
    own = shipped | {
        "resamples": 300,
        "min_users": 60,
        "lists": [each | {"margin": 1.0} for each in shipped["lists"]],
        "comparisons": [chance, *compared],
        # A machine that is busy with other tests is no slow candidate.
        "limits": shipped["limits"] | {"one_user_p50_ms": 60_000.0} | limits,
    }
    path.write_text(yaml.safe_dump(own), encoding="utf-8")
    return path


def _jobs(server, state):
    """Return what runs a job of the model plane by its command line: its result, or its exit code and last words."""
    from models import __main__ as command_line
    from models.settings import Settings

    def run(job, *given, run_key="bad", limits=None, uri=server):
        settings = Settings(
            state=state,
            mlflow_uri=uri,
            golden_rows=5,
            golden_users=1,
            golden_candidates=5,
            importance_rows=200,
            importance_repeats=1,
            gate_margins=_margins(state / "margins.yaml", **(limits or {})),
        )
        named = ("--namespace", "toy", "--training-set", "toy", "--run-key", run_key)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(command_line, "settings", lambda: settings)
            return CliRunner().invoke(command_line.app, [job, *named, *given])

    return run


@pytest.fixture
def jobs(server, tmp_path):
    return _jobs(server, tmp_path)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Return a training set of which nothing is wrong."""
    place = Namespace(tmp_path_factory.mktemp("good"), "toy")
    write_training_set(place, rows=9000, users=120)
    return place.training_sets / "toy"


@pytest.fixture
def place(tmp_path, good):
    """Return a place of its own with a copy of it."""
    place = Namespace(tmp_path, "toy")
    shutil.copytree(good, place.training_sets / "toy")
    return place


@pytest.fixture(scope="module")
def fitted(server, good, tmp_path_factory):
    """Return a place with a candidate that has learned nothing wrong: copies of the means, and who reads them."""
    place = Namespace(tmp_path_factory.mktemp("fitted"), "toy")
    shutil.copytree(good, place.training_sets / "toy")
    _change(
        place, lambda table, _: {f"{each}_value_std": _means(table, each) for each in ("user", "item")}, splits=SPLITS
    )
    _fit(_jobs(server, place.state), place, "bad", APART)
    return place


@pytest.fixture
def fitted_place(tmp_path, fitted):
    """Return a place of its own with a copy of it."""
    place = Namespace(tmp_path, "toy")
    shutil.copytree(fitted.root, place.root)
    return place


def _means(table, of):
    return table[f"{of}_value_mean"].fill_null(3.5).to_numpy().copy()


def _change(place, change, *, splits=TEST_SPLITS):
    """Replace columns of some splits by those that `change` returns of a split's table and a generator."""
    for name in splits:
        path = place.training_sets / "toy" / f"{name}.parquet"
        table = pq.read_table(path)
        for column, values in change(table, np.random.default_rng(5)).items():
            position = table.schema.get_field_index(column)
            table = table.set_column(position, column, pa.array(values, table.schema.field(column).type))
        pq.write_table(table, path)


def _whole(spec):
    """Return a spec as `python -m models specs` prints it."""
    from models.specs.spec import parse_spec

    return parse_spec(spec).whole().record()


def _fit(jobs, place, run_key, spec):
    """Train and choose the only candidate, and say that no lists were measured."""
    for job, given in (
        ("train", ("--spec", json.dumps(spec))),
        ("choose", ("--specs", json.dumps([_whole(spec)]), "--choose-by", "auc")),
    ):
        done = jobs(job, *given, run_key=run_key)
        assert done.exit_code == 0, done.stderr
    folder = place.candidates / run_key
    sha256 = json.loads((folder / spec["name"] / "run.json").read_text())["saved_model_sha256"]
    write_json(folder / "lists.json", lists_record(training_set_id="toy", saved_model_sha256=sha256))


def _judged(jobs, place, run_key="bad", **limits):
    """Evaluate and gate the only candidate; return the verdict and the gates that failed."""
    folder = place.candidates / run_key
    done = jobs("evaluate", run_key=run_key)
    assert done.exit_code == 0, done.stderr
    write_json(folder / "serving_check.json", CHECK)
    done = jobs("gate", run_key=run_key, limits=limits)
    assert done.exit_code == 0, done.stderr
    verdict = json.loads((folder / "verdict.json").read_text())
    return verdict, {gate["name"] for gate in verdict["gates"] if gate["verdict"] == "fail"}


def test_scores_that_know_nothing_of_the_labels_end_at_the_row_gate(jobs, fitted_place):
    _change(fitted_place, lambda table, random: {"label": random.permutation(table["label"].to_numpy())})
    verdict, failed = _judged(jobs, fitted_place)
    assert verdict["decision"] == "reject"
    assert failed - {"calibration_error"} == {"auc_vs_chance"}, "who knows nothing may be sure of it, too"
    assert "auc_vs_chance" in verdict["reason"]


def test_a_feature_that_knows_the_label_ends_in_hold(jobs, place, client):
    def leaked(table, random):
        return {
            "item_value_std": table["label"].to_numpy() + random.normal(0, 0.1, len(table)),
            "user_value_mean": random.permutation(_means(table, "user")),  # another user's: the means know less
        }

    _change(place, leaked, splits=SPLITS)
    _fit(jobs, place, "leaked", SPEC)
    verdict, failed = _judged(jobs, place, "leaked")
    assert (verdict["decision"], failed) == ("hold", set())
    assert "look for a feature that knows the label" in verdict["reason"]
    report = client.download_artifacts(verdict["run_id"], "gates/report.json", str(place.root))
    importance = json.loads(Path(report).read_text(encoding="utf-8"))["importance"]
    assert importance["features"][0]["feature"] == "item_value_std", "the report says which feature to look for"


def test_a_slice_whose_features_broke_ends_at_the_slice_gate(jobs, fitted_place):
    """What the candidate reads of one half of the users is another row's, after the fit; the means stay as they are."""

    def broken(table, random):
        changed = {f"{each}_value_std": _means(table, each) for each in ("user", "item")}
        changed["item_id"] = np.array(table["item_id"].to_pylist(), object)
        half = np.flatnonzero(table["user_gender"].to_numpy(zero_copy_only=False) == "F")
        for values in changed.values():
            values[half] = values[random.permutation(half)]
        return changed

    _change(fitted_place, broken)
    # Half of its probabilities mean nothing, either: that is another gate's.
    verdict, failed = _judged(jobs, fitted_place, calibration_error=0.5)
    assert (verdict["decision"], failed) == ("reject", {"slices_user_gender"})
    gate = next(each for each in verdict["gates"] if each["name"] == "slices_user_gender")
    assert "GAUC of the slice F is 0." in gate["details"]


def test_probabilities_of_another_time_end_at_calibration(jobs, fitted_place):
    """Six positives in ten are negatives since the rows that it has learned from, and is calibrated on."""

    def fewer(table, random):
        labels = table["label"].to_numpy().copy()
        labels[random.random(len(labels)) < 0.6] = 0
        return {"label": labels}

    _change(fitted_place, fewer)
    verdict, failed = _judged(jobs, fitted_place)
    assert (verdict["decision"], failed) == ("reject", {"calibration_error", "calibration_in_the_large"})


def test_a_slow_model_ends_at_latency(jobs, place):
    _fit(jobs, place, "slow", SLOW)
    verdict, failed = _judged(jobs, place, "slow", one_user_p50_ms=HARDLY_ANY_MS)
    assert (verdict["decision"], failed) == ("reject", {"one_user_latency_p50_ms"})
    gate = next(each for each in verdict["gates"] if each["name"] == "export_bytes")
    assert gate["figure"] > 4 * 2048 * 2048, "the bytes are those of the export"


def test_a_wrong_signature_ends_before_it_is_registered(jobs, fitted_place, client):
    done = jobs("train", "--spec", json.dumps(OTHER))
    assert done.exit_code == 0, done.stderr
    folder = fitted_place.candidates / "bad"
    shutil.rmtree(folder / "only" / "saved_model")
    shutil.copytree(folder / "other" / "saved_model", folder / "only" / "saved_model")
    before = [version.version for version in client.search_model_versions(f"name = '{NAME}'")]
    done = jobs("evaluate")
    assert done.exit_code == ExitCode.TERMINAL
    assert "its signature is not the contract's" in done.stderr
    assert "input item_value_std" in done.stderr
    done = jobs("gate")
    assert done.exit_code == ExitCode.TERMINAL, "there is nothing to go by"
    assert not (folder / "verdict.json").exists()
    assert [version.version for version in client.search_model_versions(f"name = '{NAME}'")] == before


def _empty(folder):
    for name in ("train", "valid"):
        pq.write_table(pq.read_table(folder / f"{name}.parquet").slice(0, 0), folder / f"{name}.parquet")
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", manifest | {"rows": manifest["rows"] | {"train": 0, "valid": 0}})


def _change_train(**columns):
    def change(folder):
        table = pq.read_table(folder / "train.parquet")
        for name, value in columns.items():
            position = table.schema.get_field_index(name)
            values = pa.array(np.full(len(table), value), table.schema.field(name).type)
            table = table.set_column(position, name, values)
        pq.write_table(table, folder / "train.parquet")

    return change


def _without_column(folder):
    pq.write_table(pq.read_table(folder / "train.parquet").drop_columns(["user_gender"]), folder / "train.parquet")


def _other_vocabulary(folder):
    record = json.loads((folder / "transforms.json").read_text())
    write_json(folder / "transforms.json", record | {"version": record["version"] - 1})


BAD_INPUT = {
    "no rows": (_empty, "expected"),
    "labels all alike": (_change_train(label=1), "expected rows of both classes"),
    "a column missing": (_without_column, r"expected columns \['user_gender'\]"),
    "a vocabulary of another version": (_other_vocabulary, "expected parameters of version"),
    "a loss that is no number": (_change_train(sample_weight=3e38), "expected a number, received"),
}


def test_bad_input_ends_training_for_good_promotes_nothing_and_the_next_try_works(jobs, place, client):
    from models import tracking

    folder, kept = place.training_sets / "toy", place.root / "kept"
    shutil.copytree(folder, kept)
    for name, (spoil, told) in BAD_INPUT.items():
        spoil(folder)
        done = jobs("train", "--spec", json.dumps(SPEC), run_key="spoilt")
        assert (name, done.exit_code) == (name, ExitCode.TERMINAL), done.stderr
        assert re.search(told, done.stderr), (name, done.stderr)
        assert not (place.candidates / "spoilt" / "only").exists(), name
        assert tracking.runs_of(client, "toy", "spoilt", "only") == [], name
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
    done = jobs("train", "--spec", json.dumps(SPEC), run_key="spoilt")
    assert done.exit_code == 0, done.stderr
    assert len(tracking.runs_of(client, "toy", "spoilt", "only")) == 1


@pytest.mark.parametrize(("free", "code"), [(10**12, ExitCode.TERMINAL), (10**8, ExitCode.TRANSIENT)])
def test_what_does_not_fit_into_memory_says_whether_to_try_again(jobs, place, monkeypatch, free, code):
    from feature_repo.contracts.memory import Memory
    from models.training import job

    total = 10**8 if code is ExitCode.TERMINAL else 10**12
    monkeypatch.setattr(job, "memory", lambda: Memory(total=total, available=free, resident=0))
    done = jobs("train", "--spec", json.dumps(SPEC), run_key="large")
    assert done.exit_code == code
    assert "training on toy: expected about" in done.stderr


@contextmanager
def _line_to(uri):
    """Yield another address of a server; when the block ends, nobody answers there, and calls under way break off."""
    upstream = urlsplit(uri)
    ends = []

    def carry(source, target):
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def answer(listener):
        with suppress(OSError):
            while True:
                near = listener.accept()[0]
                far = socket.create_connection((upstream.hostname, upstream.port))
                ends.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=answer, args=(listener,), daemon=True)
        answering.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            answering.join()
            for end in ends:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()


def test_a_tracking_server_that_goes_down_after_the_fit_is_transient_and_the_next_try_is_whole(
    jobs, place, server, client, monkeypatch
):
    from models import tracking
    from models.training import job

    export = job.export
    with ExitStack() as until_the_fit:
        uri = until_the_fit.enter_context(_line_to(server))

        def export_and_lose_the_server(*arguments):
            export(*arguments)
            until_the_fit.close()

        monkeypatch.setattr(job, "export", export_and_lose_the_server)
        lost = jobs("train", "--spec", json.dumps(SPEC), run_key="lost", uri=uri)
    assert lost.exit_code == ExitCode.TRANSIENT, lost.stderr
    assert not (place.candidates / "lost" / "only").exists(), "half of it is nothing"
    monkeypatch.setattr(job, "export", export)
    done = jobs("train", "--spec", json.dumps(SPEC), run_key="lost")
    assert done.exit_code == 0, done.stderr
    (run,) = tracking.runs_of(client, "toy", "lost", "only")
    assert run.info.status == "FINISHED"
