"""Candidates and features → a training set of the kind lists, through Feast, on a small namespace."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.channels import channels
from feature_repo.contracts.datasets import EVENTS as EVENTS_DATASET
from feature_repo.contracts.features import declared
from feature_repo.contracts.manifests import TRAINING_FILES, TrainingKind, TrainingSet
from feature_repo.contracts.places import MANIFEST, Namespace
from feature_repo.contracts.publishing import tree_sha256
from feature_repo.contracts.questions import Role
from feature_repo.contracts.schemas import MOVIELENS
from feature_repo.contracts.signatures import feature_hashes, pair_inputs
from pipelines.features.tables import feature_table
from pipelines.io.lake import stored_dataset
from pipelines.io.spark import session_at_hand
from pipelines.jobs import registry, training_set
from pipelines.questions.origins import Origin
from pipelines.settings import Settings
from pipelines.training import listed
from pipelines.training.errors import CandidatesError
from tests import feast_world as world
from tests.awkward_paths import AWKWARD
from tests.movielens import ITEM_ACTIVITY, ITEM_WINDOWS, USER_ACTIVITY, USER_SEQUENCE, USER_SESSION, USER_WINDOWS
from tests.recalled_world import CANDIDATES_ID, rounds_of, write_recalled

SERVICE = declared(MOVIELENS).ranking_windows


def days_before_the_end(days):
    return world.CUTOFF - timedelta(days=days)


ORIGINS = [
    Origin(days_before_the_end(8), days_before_the_end(6), Role.TRAIN),
    Origin(days_before_the_end(6), days_before_the_end(4), Role.TRAIN),
    Origin(days_before_the_end(4), days_before_the_end(2), Role.VALIDATION),
    Origin(days_before_the_end(2), world.CUTOFF, Role.TEST),
]


def events_at_origins():
    """Return events of which some happen at the very moment of an origin: the first of several users after it."""
    events = world.make_events(items=70)
    for origin in ORIGINS:
        moved = {}
        for row in sorted(events, key=lambda row: row["event_time"]):
            if origin.moment <= row["event_time"] < origin.end and len(moved) < 9:
                moved.setdefault(row["user_id"], row)
        for row in moved.values():
            row["event_time"] = origin.moment
    return events


EVENTS = events_at_origins()
ROUNDS = rounds_of(EVENTS, ORIGINS, MOVIELENS, seed=4)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    state = tmp_path_factory.mktemp("template")
    place = world.write_world(state, EVENTS)
    write_recalled(place, ROUNDS, world.CUTOFF, MOVIELENS)
    registry.run(Settings(state=state), place)
    return state


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory):
    """Hold one Spark session for the encodings of all training sets that this process builds."""
    with session_at_hand(Settings(state=tmp_path_factory.mktemp("spark")), "training sets"):
        yield


@pytest.fixture
def settings(tmp_path):
    return Settings(state=tmp_path / AWKWARD)


@pytest.fixture
def place(settings, template):
    shutil.copytree(template, settings.state, dirs_exist_ok=True)
    place = Namespace(settings.state, "test-set")
    registry.run(settings, place)
    return place


def build(settings, place):
    result = training_set.run(settings, place, world.CUTOFF, TrainingKind.LISTS, CANDIDATES_ID)
    return place.training_sets / str(result["training_set"])


def rows_of(directory, *names):
    return pa.concat_tables([pq.read_table(directory / name, partitioning=None) for name in names]).to_pylist()


def latest(place, group, key, before):
    """Return the features of the latest row of a key strictly before a moment, "no value" where there is none."""
    rows = [row for row in world.read(feature_table(place, group)) if row[group.entity.name] == key]
    found = max((row for row in rows if row["event_time"] < before), key=lambda row: row["event_time"], default={})
    return {column.name: found.get(column.name, column.blank) for column in group.features}


def test_a_row_knows_what_was_known_strictly_before_its_question(settings, place):
    directory = build(settings.model_copy(update={"ranking_sequences": True}), place)
    record = TrainingSet.read(directory / MANIFEST)
    assert record.feature_service == "ranking_sequences"
    splits = {name: rows_of(directory, name) for name in TRAINING_FILES}
    rows = [row for name in TRAINING_FILES[:3] for row in splits[name]]
    assert [row["example_id"] for row in rows] == list(range(len(rows)))
    assert record.rows == {name.removesuffix(".parquet"): len(of) for name, of in splits.items()}
    known = {(row["user_id"], row["event_time"]) for row in world.read(feature_table(place, USER_ACTIVITY))}
    for row in rows[::17]:
        for group, key in (
            *((group, "user_id") for group in (USER_ACTIVITY, USER_SESSION, USER_SEQUENCE, USER_WINDOWS)),
            *((group, "item_id") for group in (ITEM_ACTIVITY, ITEM_WINDOWS)),
        ):
            expected = latest(place, group, row[key], row["event_time"])
            assert {name: row[name] for name in expected} == expected, (row["example_id"], group.name)
        assert row["request_time"] == int(row["event_time"].timestamp())
    assert any((row["user_id"], row["event_time"]) in known for row in rows), (
        "features of the question's own moment, which hold what the user did then"
    )
    assert {row["event_time"] for row in splits[TRAINING_FILES[2]]} == {ORIGINS[3].moment}


def test_what_recall_said_stands_beside_its_row_and_nothing_is_null_but_dates(settings, place):
    directory = build(settings, place)
    told, groups = {}, 0
    for each in ROUNDS:
        for row in each.candidates:
            told.setdefault((groups + row["question_id"], row["item_id"]), {})[row["channel"]] = row
        groups += len(each.questions) // 2  # the others are asked just before the next event
    rows = rows_of(directory, *TRAINING_FILES[:3])
    assert all(
        not field.nullable for field in pq.read_schema(directory / TRAINING_FILES[0]) if "fitted_at" not in field.name
    )
    for row in rows:
        found = told[row["group_id"], row["item_id"]]
        for name, channel in channels(MOVIELENS).items():
            said = found.get(name, {"rank": 0, "score": None, "fitted_at": None})
            assert row[f"pair_{name}_rank"] == said["rank"]
            assert row[f"pair_{name}_fitted_at"] == said["fitted_at"]
            if channel.score:
                assert row[f"pair_{name}_score"] == (-1e9 if said["score"] is None else said["score"])
    refreshed, test = (rows_of(directory, TRAINING_FILES[place]) for place in (3, 2))
    stated = [name for name in test[0] if name.startswith("pair_")]
    assert [[row[name] for name in stated] for row in refreshed] == [[row[name] for name in stated] for row in test]


def test_test_rows_as_of_a_refresh_that_is_longer_ago_know_less(settings, place):
    directory = build(settings.model_copy(update={"refresh_hours": 37}), place)
    test, refreshed = (rows_of(directory, TRAINING_FILES[number]) for number in (2, 3))
    assert [row["example_id"] for row in test] == [row["example_id"] for row in refreshed]
    period = 37 * 3600
    for row in refreshed[::7]:
        moment = datetime.fromtimestamp(row["request_time"] // period * period, ORIGINS[3].moment.tzinfo)
        expected = latest(place, ITEM_ACTIVITY, row["item_id"], moment)
        assert {name: row[name] for name in expected} == expected
    assert any(a["item_event_count"] > b["item_event_count"] for a, b in zip(test, refreshed, strict=True))


def test_the_record_says_what_it_was_made_from_and_how_it_is_split(settings, place):
    directory = build(settings.model_copy(update={"label_min_value": 1.0}), place)
    record = TrainingSet.read(directory / MANIFEST)
    assert (record.kind, record.candidates_id) == (TrainingKind.LISTS, CANDIDATES_ID)
    assert record.train_end == ORIGINS[2].moment.isoformat()
    assert record.valid_end == ORIGINS[3].moment.isoformat()
    assert record.feature_service == "ranking_windows"
    assert record.label_min_value == 4.0, "answers are likes, whatever the labels of other sets are"
    pairs = {name: digest for name, digest in feature_hashes(MOVIELENS).items() if name.startswith("pair_")}
    assert record.feature_hashes == SERVICE.feature_hashes | pairs
    tables = {group.view_name: feature_table(place, group).snapshot().checksum for group in SERVICE.groups}
    events = stored_dataset(place, EVENTS_DATASET).snapshot().checksum
    assert record.sources == {**tables, "events": events, "candidates": CANDIDATES_ID}
    values = [row["value"] for row in EVENTS if row["event_time"] < ORIGINS[2].moment]
    assert record.prior_mean == pytest.approx(sum(values) / len(values))


def test_encodings_of_pairs_are_fitted_on_what_channels_said_in_train(settings, place):
    directory = build(settings, place)
    fitted = json.loads((directory / "transforms.json").read_text())["columns"]
    assert pair_inputs(MOVIELENS).keys() <= fitted.keys()
    train = rows_of(directory, TRAINING_FILES[0])
    for name, curve in (("pair_ease_score", float), ("pair_ease_rank", math.log1p)):
        missing = pair_inputs(MOVIELENS)[name].column.missing
        known = [curve(row[name]) for row in train if row[name] != missing]
        assert 0 < len(known) < len(train)
        mean = sum(known) / len(known)
        assert fitted[name]["mean"] == pytest.approx(mean)
        assert fitted[name]["std"] == pytest.approx(math.sqrt(sum((x - mean) ** 2 for x in known) / len(known)))


def test_ranking_models_read_it_with_every_pair_feature(settings, place):
    from models.dataset import read_dataset

    directory = build(settings, place)
    # Which kinds a model takes is the model plane's to say; what it reads of one has to be there.
    replace(TrainingSet.read(directory / MANIFEST), kind=TrainingKind.RANKING).write(directory / MANIFEST)
    dataset = read_dataset(directory)
    assert dataset.signature.pairs.keys() == pair_inputs(MOVIELENS).keys()
    assert {column.name for column in SERVICE.columns} <= dataset["train"].features.keys()


def test_the_same_inputs_give_the_same_bytes_and_are_not_built_twice(settings, place, tmp_path, monkeypatch):
    directory = build(settings, place)
    content = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert content.keys() == {*TRAINING_FILES, "transforms.json", "manifest.json"}
    directory.rename(tmp_path / "first")
    assert build(settings, place) == directory
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == content
    monkeypatch.setattr(training_set, "open_store", lambda *_: pytest.fail("built again"))
    other = settings.model_copy(update={"train_fraction": 0.5, "samples_per_user": 3, "negatives": 9})
    assert build(other, place) == directory, "what decides of other kinds' rows decides nothing here"


def test_fewer_rows_of_train_are_another_training_set(settings, place, monkeypatch):
    monkeypatch.setattr(listed, "_LEAST_OF_A_KIND", 2)
    directory = build(settings, place)
    fewer = build(settings.model_copy(update={"list_rows": 1}), place)
    assert fewer != directory
    records = [TrainingSet.read(each / MANIFEST) for each in (directory, fewer)]
    assert records[0].rows["train"] > records[1].rows["train"]
    for name in ("valid.parquet", "test.parquet"):
        of_all, of_fewer = (rows_of(each, name) for each in (directory, fewer))
        shift = records[0].rows["train"] - records[1].rows["train"]
        assert [row | {"example_id": row["example_id"] - shift} for row in of_all] == of_fewer


def test_a_killed_build_leaves_nothing_that_counts(settings, place, tmp_path):
    command = [sys.executable, "-m", "pipelines", "training-set", "--namespace", place.name, "--cutoff", "1998-04-11"]
    command += ["--kind", "lists", "--candidates", CANDIDATES_ID]
    environment = {**os.environ, "KESTREL_STATE": str(settings.state)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(place.training_sets.glob(".*.part/*/train.parquet")):
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not list(place.training_sets.glob("[!.]*"))
    directory = build(settings, place)
    assert [path.name for path in place.training_sets.iterdir()] == [directory.name]
    directory.rename(tmp_path / "after")
    assert build(settings, place) == directory
    assert tree_sha256(directory) == tree_sha256(tmp_path / "after")


def test_candidates_that_know_the_answers_publish_nothing(settings, place):
    shutil.rmtree(place.recalled)
    shutil.rmtree(place.questions)
    rounds = rounds_of(EVENTS, ORIGINS, MOVIELENS, seed=4)
    rounds[1].candidates[-1]["fitted_at"] = ORIGINS[1].end
    write_recalled(place, rounds, world.CUTOFF, MOVIELENS)
    with pytest.raises(CandidatesError, match="later ones know the answer"):
        build(settings, place)
    assert not list(place.training_sets.glob("*"))
