"""Rows divided at random and by time: which rows are where, and what is made of a model that fails."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.manifests import TrainingSet
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.planes import run_plane
from models.benchmark.boosted import Boosted, BoostedConfig
from models.benchmark.context import FOLDS, read_context
from models.benchmark.job import benchmark
from models.benchmark.measure import figures, measure
from models.benchmark.preparation import WORK
from models.benchmark.presets import Presets
from models.benchmark.protocols import Protocol
from models.dataset import TEST, TRAIN, VALID, read_dataset
from models.errors import DatasetError
from tests.training_set_fixture import write_training_set

QUICK = Presets(common={"embedding_size": 4, "hidden": [8], "batch_size": 256, "epochs": 1}, models={"lr": {}})


@pytest.fixture(scope="module")
def training_set(tmp_path_factory):
    place = Namespace(tmp_path_factory.mktemp("state"), "toy")
    write_training_set(place, rows=2000)
    return place.training_sets / "toy"


@pytest.fixture(scope="module")
def context(training_set):
    return read_context(training_set)


def test_every_row_is_tested_once_and_is_in_one_split_of_each_fold(context):
    marked = context.rows.append_column("row", pa.array(np.arange(len(context.rows))))
    tested = np.zeros(len(marked), int)
    for number in range(1, FOLDS + 1):
        fold = context.fold(number)
        assert sum(fold[name].rows for name in (TRAIN, VALID, TEST)) == len(marked) == 2000
        assert fold[TEST].rows == fold[VALID].rows == 200
        tested[context.tested_in == number] += 1
        here = context.rows.filter(pa.array(context.tested_in == number))["item_id"].to_pylist()
        assert fold[TEST].features["item_id"].tolist() == here
    assert (tested == 1).all()


def test_the_rows_that_validate_a_fold_are_those_of_the_fold_before(context):
    assert context.fold(3)[VALID].features["user_id"].tolist() == context.fold(2)[TEST].features["user_id"].tolist()
    assert context.fold(1)[VALID].labels.tolist() == context.fold(FOLDS)[TEST].labels.tolist()


def test_a_context_table_has_ids_and_attributes_and_nothing_of_behaviour(context, training_set):
    kinds = {field.name: (field.type, field.of) for field in context.declared.fields}
    assert kinds == {
        "user_id": ("categorical", "user"),
        "item_id": ("categorical", "item"),
        "user_age": ("categorical", "user"),
        "user_gender": ("categorical", "user"),
        "user_occupation": ("categorical", "user"),
        "item_release_year": ("categorical", "item"),
        "item_genres": ("sequence", "item"),
    }
    stored = pa.concat_tables(pq.read_table(training_set / f"{name}.parquet") for name in (TRAIN, VALID, TEST))
    assert context.rows["label"].to_pylist() == stored["label"].to_pylist()
    ages = {str(int(age)) for age in stored["user_age"].to_pylist() if age is not None and np.isfinite(age)}
    assert {age for age in context.rows["user_age"].to_pylist() if age is not None} == ages


def test_an_attribute_of_many_numbers_stays_a_number(training_set, tmp_path):
    for name in (TRAIN, VALID, TEST):
        table = pq.read_table(training_set / f"{name}.parquet")
        place = table.column_names.index("item_release_year")
        prices = pa.array(np.linspace(1, 9, len(table)).astype(np.float32))
        pq.write_table(table.set_column(place, "item_release_year", prices), tmp_path / f"{name}.parquet")
    (tmp_path / "manifest.json").write_bytes((training_set / "manifest.json").read_bytes())
    context = read_context(tmp_path)
    assert {field.name: field.type for field in context.declared.fields}["item_release_year"] == "numeric"
    assert "item_release_year" in context.fold(1).transforms.scalings


def test_what_is_no_training_set_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="expected a training set of kind ranking"):
        read_context(tmp_path)


def test_trees_learn_what_the_means_tell(training_set):
    dataset = read_dataset(training_set)
    measured = measure(Boosted(BoostedConfig(leaves=4, learning_rate=0.2)), dataset, seed=1)
    found = figures(dataset[TEST], measured.test)
    assert found["auc"] == pytest.approx(roc_auc_score(dataset[TEST].labels, measured.test))
    assert found["auc"] > 0.6
    assert 0 < measured.test.min() <= measured.test.max() < 1
    assert measured.fitted is None


def test_by_time_the_untrained_and_trees_stand_beside(training_set):
    found = benchmark(Protocol.TIME, training_set, "", ["lr", "lightgbm"], 1, QUICK)
    assert [row["model"] for row in found["rows"]] == ["popularity", "means", "lr", "lightgbm"]
    assert [row["log_loss"] is None for row in found["rows"]] == [True, True, False, False]
    test = read_dataset(training_set, (TEST,))[TEST]
    expected = roc_auc_score(test.labels, test.features["item_event_count"])
    assert found["rows"][0]["auc"] == pytest.approx(expected)


def test_a_model_that_fails_stops_no_other_and_the_command_tells(training_set, tmp_path):
    from models.__main__ import app

    preset = tmp_path / "preset.yaml"
    preset.write_text(json.dumps(QUICK.model_dump()), encoding="utf-8")
    given = ["benchmark", "--protocol", "random", "--data", str(training_set), "--models", "din,lr"]
    result = CliRunner().invoke(app, [*given, "--preset", str(preset)])
    assert result.exit_code == ExitCode.TERMINAL
    failed, linear = json.loads(result.stdout.splitlines()[-1])["rows"]
    assert (failed["model"], failed["auc"], failed["seconds"]) == ("din", None, None)
    assert failed["error"].startswith("BuildError: expected a list of the user's")
    assert linear["auc"] > 0.4
    assert "error" not in linear
    assert "received none of ['din, seed 1']" in result.stderr


@pytest.mark.zoo
@pytest.mark.timeout(900)
def test_any_source_becomes_rows_of_both_protocols(tmp_path, monkeypatch):
    """The data plane's own jobs make them; the second protocol finds what the first one made."""
    log = tmp_path / "log"
    size = ("--events", "4000", "--users", "80", "--items", "60", "--days", "90")
    run_plane(["pipelines", "generate", "--out", str(log), *size], os.environ)
    monkeypatch.setenv("KESTREL_STATE", str(tmp_path / "state"))
    at_random = benchmark(Protocol.RANDOM, log, "", ["lr"], 1, QUICK)
    by_time = benchmark(Protocol.TIME, log, "", ["lr"], 1, QUICK)
    assert [row["model"] for row in at_random["rows"]] == ["lr"]
    assert [row["model"] for row in by_time["rows"]] == ["popularity", "means", "lr"]
    (made,) = (tmp_path / "state" / WORK).glob("data/*/training_sets/*/manifest.json")
    record = TrainingSet.read(made)
    events = sum(rows for name, rows in record.rows.items() if name in {TRAIN, VALID, TEST})
    assert len(read_context(made.parent).rows) == events > 3000
