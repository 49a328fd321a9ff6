"""Deliberately bad candidates, each by the jobs' command lines as the only one: the gate that is made for it says no.

The margins are the shipped ones where they are about the candidate alone. Those of comparisons are loose, so that it is
the gate in question that decides, and nothing but it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

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

SPLITS = ("train", "valid", "test", "test_as_of_refresh")
FEATURES = ["user_value_mean", "item_value_mean", "user_value_std", "item_value_std", "user_gender"]
SPEC = {
    "name": "only",
    "class": "deepfm",
    "features": FEATURES,
    "config": {"hidden": [16], "fit": {"batch_size": 512, "epochs": 6, "learning_rate": 1e-2}},
}
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
        "lists": [each | {"margin": 1.0} for each in shipped["lists"]],
        "comparisons": [chance, *compared],
        # A machine that is busy with other tests is no slow candidate.
        "limits": shipped["limits"] | {"one_user_p50_ms": 60_000.0} | limits,
    }
    path.write_text(yaml.safe_dump(own), encoding="utf-8")
    return path


@pytest.fixture
def jobs(server, tmp_path, monkeypatch):
    """Return what runs a job of the model plane by its command line: its result, or its exit code and last words."""
    from models import __main__ as command_line
    from models.settings import Settings

    def run(job, *given, run_key="bad", limits=None):
        settings = Settings(
            state=tmp_path,
            mlflow_uri=server,
            golden_rows=5,
            golden_users=1,
            golden_candidates=5,
            importance_rows=200,
            importance_repeats=1,
            gate_margins=_margins(tmp_path / "margins.yaml", **(limits or {})),
        )
        monkeypatch.setattr(command_line, "settings", lambda: settings)
        named = ("--namespace", "toy", "--training-set", "toy", "--run-key", run_key)
        return CliRunner().invoke(command_line.app, [job, *named, *given])

    return run


@pytest.fixture
def place(tmp_path):
    return Namespace(tmp_path, "toy")


def _write(place, change=None, **options):
    """Write a training set, with each split's columns as `change` returns them."""
    write_training_set(place, rows=9000, users=230, **options)
    for name in SPLITS if change else ():
        path = place.training_sets / "toy" / f"{name}.parquet"
        table = pq.read_table(path)
        for column, values in change(table, name, np.random.default_rng(5)).items():
            position = table.schema.get_field_index(column)
            table = table.set_column(position, column, pa.array(values, table.schema.field(column).type))
        pq.write_table(table, path)


def _whole(spec):
    """Return a spec as `python -m models specs` prints it."""
    from models.specs.spec import parse_spec

    return parse_spec(spec).whole().record()


def _judged(jobs, place, run_key, spec=SPEC, **limits):
    """Train, choose, evaluate and gate the only candidate; return the verdict and the gates that failed."""
    for job, given in (
        ("train", ("--spec", json.dumps(spec))),
        ("choose", ("--specs", json.dumps([_whole(spec)]), "--choose-by", "auc")),
    ):
        done = jobs(job, *given, run_key=run_key)
        assert done.exit_code == 0, done.stderr
    folder = place.candidates / run_key
    sha256 = json.loads((folder / spec["name"] / "run.json").read_text())["saved_model_sha256"]
    write_json(folder / "lists.json", lists_record(training_set_id="toy", saved_model_sha256=sha256))
    done = jobs("evaluate", run_key=run_key)
    assert done.exit_code == 0, done.stderr
    write_json(folder / "serving_check.json", CHECK)
    done = jobs("gate", run_key=run_key, limits=limits)
    assert done.exit_code == 0, done.stderr
    verdict = json.loads((folder / "verdict.json").read_text())
    return verdict, {gate["name"] for gate in verdict["gates"] if gate["verdict"] == "fail"}


def test_shuffled_labels_end_at_the_row_gate(jobs, place):
    _write(place, shuffle_labels=True)
    verdict, failed = _judged(jobs, place, "shuffled")
    assert (verdict["decision"], failed) == ("reject", {"auc_vs_chance"})
    assert "auc_vs_chance" in verdict["reason"]


def test_a_feature_that_knows_the_label_ends_in_hold(jobs, place, client):
    def leaked(table, _, random):
        return {"item_value_std": table["label"].to_numpy() + random.normal(0, 0.1, len(table))}

    _write(place, leaked)
    verdict, failed = _judged(jobs, place, "leaked")
    assert (verdict["decision"], failed) == ("hold", set())
    assert "look for a feature that knows the label" in verdict["reason"]
    report = client.download_artifacts(verdict["run_id"], "gates/report.json", str(place.root))
    importance = json.loads(Path(report).read_text(encoding="utf-8"))["importance"]
    assert importance["features"][0]["feature"] == "item_value_std", "the report says which feature to look for"


def test_a_slice_whose_features_broke_ends_at_the_slice_gate(jobs, place):
    """What the candidate reads of one half of the users is another row's, after the fit; the means stay as they are."""

    def broken(table, name, random):
        means = {each: table[f"{each}_value_mean"].fill_null(3.5).to_numpy().copy() for each in ("user", "item")}
        if name.startswith("test"):
            half = np.flatnonzero(table["user_gender"].to_numpy(zero_copy_only=False) == "F")
            for values in means.values():
                values[half] = values[random.permutation(half)]
        return {f"{each}_value_std": values for each, values in means.items()}

    _write(place, broken)
    features = ["user_value_std", "item_value_std", "user_gender"]
    verdict, failed = _judged(jobs, place, "broken", SPEC | {"features": features})
    assert (verdict["decision"], failed) == ("reject", {"slices_user_gender"})
    gate = next(each for each in verdict["gates"] if each["name"] == "slices_user_gender")
    assert "GAUC of the slice F is 0." in gate["details"]


def test_probabilities_of_another_time_end_at_calibration(jobs, place):
    """Six positives in ten are negatives in the rows that it learns from, and is calibrated on."""

    def fewer(table, name, random):
        labels = table["label"].to_numpy().copy()
        if not name.startswith("test"):
            labels[random.random(len(labels)) < 0.6] = 0
        return {"label": labels}

    _write(place, fewer)
    verdict, failed = _judged(jobs, place, "uncalibrated")
    assert (verdict["decision"], failed) == ("reject", {"calibration_error", "calibration_in_the_large"})


def test_a_slow_model_ends_at_latency(jobs, place):
    _write(place)
    verdict, failed = _judged(jobs, place, "slow", SLOW, one_user_p50_ms=HARDLY_ANY_MS)
    assert (verdict["decision"], failed) == ("reject", {"one_user_latency_p50_ms"})
    gate = next(each for each in verdict["gates"] if each["name"] == "export_bytes")
    assert gate["figure"] > 4 * 2048 * 2048, "the bytes are those of the export"


def test_a_wrong_signature_ends_before_it_is_registered(jobs, place, client):
    _write(place)
    for spec in (SPEC, OTHER):
        done = jobs("train", "--spec", json.dumps(spec))
        assert done.exit_code == 0, done.stderr
    done = jobs("choose", "--specs", json.dumps([_whole(SPEC)]), "--choose-by", "auc")
    assert done.exit_code == 0, done.stderr
    folder = place.candidates / "bad"
    sha256 = json.loads((folder / "only" / "run.json").read_text())["saved_model_sha256"]
    write_json(folder / "lists.json", lists_record(training_set_id="toy", saved_model_sha256=sha256))
    shutil.rmtree(folder / "only" / "saved_model")
    shutil.copytree(folder / "other" / "saved_model", folder / "only" / "saved_model")
    before = [version.version for version in client.search_model_versions(f"name = '{NAME}'")]
    done = jobs("evaluate")
    assert done.exit_code == 0, done.stderr
    differences = json.loads((folder / "evaluation.json").read_text())["signature_differences"]
    assert any("item_value_std" in each for each in differences)
    write_json(folder / "serving_check.json", CHECK)
    done = jobs("gate")
    assert done.exit_code == ExitCode.TERMINAL
    assert "it was changed after training" in done.stderr
    assert not (folder / "verdict.json").exists()
    assert [version.version for version in client.search_model_versions(f"name = '{NAME}'")] == before
