"""Events and features → training set, through Feast, on a small namespace."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.datasets import EVENTS as EVENTS_DATASET
from feature_repo.contracts.manifests import TRAINING_FILES, TrainingKind, TrainingSet
from feature_repo.contracts.places import MANIFEST, Namespace
from feature_repo.contracts.publishing import tree_sha256
from feature_repo.contracts.schemas import MOVIELENS, write_schema
from pipelines.errors import DatasetChangedError, JobError
from pipelines.feast_store.errors import RowCountError
from pipelines.feast_store.retrieval import retrieve
from pipelines.features.tables import feature_table
from pipelines.io.lake import stored_dataset
from pipelines.io.spark import session_at_hand
from pipelines.jobs import registry, training_set
from pipelines.settings import Settings
from pipelines.training.errors import CorruptTrainingSetError, TrainingDataError
from tests import feast_world as world
from tests.awkward_paths import AWKWARD
from tests.movielens import FEATURES, ITEM_ACTIVITY, RANKING_FEATURES, USER_ACTIVITY, USER_SESSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENTS = world.make_events()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("template")
    world.write_world(state, EVENTS)
    return state


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hold one Spark session for the encodings of all training sets that this process builds."""
    with session_at_hand(Settings(state=tmp_path_factory.mktemp("spark")), "training sets"):
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path / AWKWARD)


@pytest.fixture
def place(settings: Settings, template: Path) -> Namespace:
    shutil.copytree(template, settings.state, dirs_exist_ok=True)
    place = Namespace(settings.state, "test-set")
    registry.run(settings, place)
    return place


def build(settings: Settings, place: Namespace, cutoff: datetime = world.CUTOFF) -> Path:
    return place.training_sets / str(training_set.run(settings, place, cutoff)["training_set"])


def rows_of(directory: Path, *names: str) -> list[dict[str, Any]]:
    tables = [pq.read_table(directory / name, partitioning=None) for name in names]
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    return rows


def latest(place: Namespace, before: datetime, key: str, entity: str) -> dict[str, Any] | None:
    """Return the latest feature row of an entity strictly before a moment, found without DuckDB or Feast."""
    groups = (USER_ACTIVITY, USER_SESSION) if key == "user_id" else (ITEM_ACTIVITY,)
    known: dict[str, Any] = {}
    for group in groups:
        rows = [row for row in world.read(feature_table(place, group)) if row[key] == entity]
        known |= max((row for row in rows if row["event_time"] < before), key=lambda row: row["event_time"], default={})
    return known or None


def with_missing(row: dict[str, Any] | None) -> dict[str, Any]:
    missing: dict[str, Any] = {
        column.name: [column.missing] * column.length if column.length else column.missing
        for column in (*USER_ACTIVITY.features, *USER_SESSION.features, *ITEM_ACTIVITY.features)
    }
    return missing if row is None else row


def test_every_event_is_one_row_in_canonical_order(settings: Settings, place: Namespace) -> None:
    rows = rows_of(build(settings, place), *TRAINING_FILES[:3])
    events = sorted(EVENTS, key=lambda row: tuple(row[name] for name in EVENTS_DATASET.sort))
    shared = {(row["user_id"], row["event_time"]) for row in events}
    assert len(shared) < len(events) / 2
    assert [row["example_id"] for row in rows] == list(range(len(events)))
    for name in ("user_id", "item_id", "event_time", "value"):
        assert [row[name] for row in rows] == [event[name] for event in events]
    assert [row["request_time"] for row in rows] == [int(event["event_time"].timestamp()) for event in events]
    assert [row["label"] for row in rows] == [int(event["value"] >= 4) for event in events]


def test_features_are_those_strictly_before_the_label(settings: Settings, place: Namespace) -> None:
    rows = rows_of(build(settings, place), *TRAINING_FILES[:3])
    for row in rows[::23]:
        user = with_missing(latest(place, row["event_time"], "user_id", row["user_id"]))
        item = with_missing(latest(place, row["event_time"], "item_id", row["item_id"]))
        for column in (*USER_ACTIVITY.features, *USER_SESSION.features):
            assert row[column.name] == user[column.name], (row["example_id"], column.name)
        for column in ITEM_ACTIVITY.features:
            assert row[column.name] == item[column.name], (row["example_id"], column.name)


def test_test_rows_as_of_the_last_refresh_know_nothing_of_the_day(settings: Settings, place: Namespace) -> None:
    directory = build(settings, place)
    moment, refreshed = rows_of(directory, TRAINING_FILES[2]), rows_of(directory, TRAINING_FILES[3])
    for name in ("example_id", "event_time", "request_time", "label"):
        assert [row[name] for row in moment] == [row[name] for row in refreshed]
    for row in refreshed:
        midnight = row["event_time"].replace(hour=0, minute=0, second=0, microsecond=0)
        user = with_missing(latest(place, midnight, "user_id", row["user_id"]))
        assert row["user_event_count"] == user["user_event_count"]
        assert row["user_last_items"] == user["user_last_items"]
    assert any(a["user_event_count"] != b["user_event_count"] for a, b in zip(moment, refreshed, strict=True))


def test_the_manifest_says_what_it_was_made_from(settings: Settings, place: Namespace) -> None:
    directory = build(settings, place)
    record = TrainingSet.read(directory / "manifest.json")
    train, valid, test = (rows_of(directory, name) for name in TRAINING_FILES[:3])
    assert record.rows == {
        "train": len(train), "valid": len(valid), "test": len(test), "test_as_of_refresh": len(test),
    }  # fmt: skip
    train_end, valid_end = (datetime.fromisoformat(text) for text in (record.train_end, record.valid_end))
    assert train[-1]["event_time"] < train_end <= valid[0]["event_time"]
    assert valid[-1]["event_time"] < valid_end <= test[0]["event_time"]
    assert record.prior_mean == pytest.approx(sum(row["value"] for row in train) / len(train), abs=1e-12)
    tables = {group.view_name: feature_table(place, group) for group in RANKING_FEATURES.groups}
    tables["events"] = stored_dataset(place, EVENTS_DATASET)
    assert record.sources == {name: table.snapshot().checksum for name, table in tables.items()}
    assert record.feature_hashes == RANKING_FEATURES.feature_hashes
    assert (place.root / record.item_embeddings).is_file()


def test_transforms_are_fitted_on_train_rows_alone(settings: Settings, place: Namespace) -> None:
    late = world.CUTOFF - timedelta(hours=1)
    plain = json.loads((build(settings, place) / "transforms.json").read_text())
    planted = [world.event(f"new{n}", "i-late", late, 5.0 if n % 2 else 1.0) for n in range(40)]
    world.write(stored_dataset(place, EVENTS_DATASET), sorted([*EVENTS, *planted], key=lambda row: row["event_time"]))
    wider = settings.model_copy(update={"train_fraction": 0.8 * len(EVENTS) / (len(EVENTS) + 40)})
    directory = build(wider, place)
    assert "i-late" in {row["item_id"] for row in rows_of(directory, TRAINING_FILES[2])}
    assert json.loads((directory / "transforms.json").read_text()) == plain


def test_the_same_inputs_give_the_same_bytes_and_are_not_built_twice(
    settings: Settings, place: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = build(settings, place)
    content = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert content.keys() == {*TRAINING_FILES, "transforms.json", "manifest.json"}
    directory.rename(tmp_path / "first")
    assert build(settings, place) == directory
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == content
    monkeypatch.setattr(training_set, "open_store", lambda *_: pytest.fail("built again"))
    assert build(settings, place) == directory


def test_one_changed_feature_value_changes_the_id(settings: Settings, place: Namespace) -> None:
    first = build(settings, place)
    rows = world.read(feature_table(place, ITEM_ACTIVITY))
    rows[len(rows) // 2]["item_value_mean"] += 0.5
    world.write_features(place, ITEM_ACTIVITY, rows)
    second = build(settings, place)
    assert second != first
    records = [TrainingSet.read(directory / "manifest.json") for directory in (first, second)]
    assert records[0].checksums["train.parquet"] != records[1].checksums["train.parquet"]


@pytest.mark.parametrize("change", [{"label_min_value": 3.0}, {"train_fraction": 0.7}, {"refresh_hours": 6}])
def test_settings_change_the_id(settings: Settings, place: Namespace, change: dict[str, float]) -> None:
    assert build(settings, place) != build(settings.model_copy(update=change), place)


def test_events_at_or_after_the_cutoff_change_nothing(settings: Settings, place: Namespace) -> None:
    first = build(settings, place)
    future = [world.event("u1", "i-future", world.CUTOFF, 5.0), world.event("u2", "i0", world.CUTOFF, 1.0)]
    world.write(stored_dataset(place, EVENTS_DATASET), [*EVENTS, *future])
    rows = world.read(feature_table(place, USER_ACTIVITY))
    world.write_features(place, USER_ACTIVITY, [*rows, {**rows[0], "event_time": world.CUTOFF}])
    assert build(settings, place) == first


def test_a_damaged_training_set_is_refused_with_its_name(settings: Settings, place: Namespace) -> None:
    directory = build(settings, place)
    table = pq.read_table(directory / "valid.parquet")
    changed = table.set_column(5, "label", pa.array([1 - table["label"][0].as_py(), *table["label"].to_pylist()[1:]]))
    pq.write_table(changed.cast(table.schema), directory / "valid.parquet")
    with pytest.raises(CorruptTrainingSetError, match=r"\['valid.parquet'\] differs from its manifest; remove"):
        build(settings, place)


def test_a_table_rewritten_meanwhile_ends_in_a_retry_and_publishes_nothing(
    settings: Settings, place: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = world.read(feature_table(place, ITEM_ACTIVITY))
    rows[0]["item_event_count"] += 1

    def rewrite_then_retrieve(*arguments: Any) -> Any:
        world.write_features(place, ITEM_ACTIVITY, rows)
        return retrieve(*arguments)

    monkeypatch.setattr(training_set, "retrieve", rewrite_then_retrieve)
    with pytest.raises(DatasetChangedError, match="was rewritten while it was read"):
        build(settings, place)
    assert not list(place.training_sets.glob("*"))


def test_rows_lost_on_the_way_from_the_join_end_the_job_and_publish_nothing(
    settings: Settings, place: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def retrieve_all_but_one(*arguments: Any) -> Iterator[Iterator[pa.RecordBatch]]:
        with retrieve(*arguments) as batches:
            yield (batch.slice(1) if number == 0 else batch for number, batch in enumerate(batches))

    monkeypatch.setattr(training_set, "retrieve", retrieve_all_but_one)
    with pytest.raises(RowCountError, match=r"expected rows .* out of the join, received"):
        build(settings, place)
    assert not list(place.training_sets.glob("*"))


def test_a_killed_build_leaves_nothing_that_counts(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    arguments = ["--namespace", place.name, "--cutoff", "1998-04-11"]
    environment = {**os.environ, "KESTREL_STATE": str(settings.state)}
    command = [sys.executable, "-m", "pipelines", "training-set", *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(place.training_sets.glob(".*.part/owner.lock")):
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not list(place.training_sets.glob("[!.]*"))
    directory = build(settings, place)
    assert [path.name for path in place.training_sets.iterdir()] == [directory.name]
    directory.rename(tmp_path / "after")
    assert build(settings, place) == directory
    assert tree_sha256(directory) == tree_sha256(tmp_path / "after")


def test_too_early_a_cutoff_says_so(settings: Settings, place: Namespace) -> None:
    early = world.FIRST - timedelta(days=30, hours=20)
    world.write_embeddings(place, ["i0"], ["u0"], early)
    with pytest.raises(TrainingDataError, match="no event before the cutoff"):
        build(settings, place, early)


def test_labels_of_one_class_say_so(settings: Settings, place: Namespace) -> None:
    with pytest.raises(TrainingDataError, match="KESTREL_LABEL_MIN_VALUE"):
        build(settings.model_copy(update={"label_min_value": 0.5}), place)


def test_missing_embeddings_say_which_job_to_run(settings: Settings, place: Namespace) -> None:
    shutil.rmtree(place.embeddings)
    with pytest.raises(JobError, match="python -m pipelines embeddings"):
        build(settings, place)


LONG_CUTOFF = datetime(1998, 5, 21, tzinfo=UTC)


def long_log() -> list[dict[str, Any]]:
    """Draw ratings of few users over fifty days, at midnights and beside them, often several in one second."""
    dice = random.Random(5)
    events = {}
    while len(events) < 600:
        second = dice.choice([0, 1, 86_399, dice.randrange(86_400)])
        time = datetime(1998, 4, 1 + dice.randrange(30), tzinfo=UTC) + timedelta(
            days=dice.randrange(20), seconds=second
        )
        key = f"u{dice.randrange(7)}", f"i{dice.randrange(25)}", time
        events[key] = world.event(*key, float(dice.randint(1, 5)))
    return list(events.values())


def oracle(events: list[dict[str, Any]], row: dict[str, Any], moment: datetime) -> dict[str, Any]:
    """Return features of a row's user and item as of a moment, from the events alone: no table, no join."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    own = [event for event in events if event["event_time"] < moment and event["user_id"] == row["user_id"]]
    of_item = [event for event in events if event["event_time"] < moment and event["item_id"] == row["item_id"]]
    last = sorted(own, key=lambda event: (-seconds(event), event["item_id"]))
    figures: dict[str, Any] = {
        "user_event_count": len(own),
        "user_last_items": padded([event["item_id"] for event in last], 10, ""),
        "user_last_values": padded([event["value"] for event in last], 10, -1.0),
        "user_last_event_time": max(map(seconds, own), default=0),
        "user_sequence_items": padded([event["item_id"] for event in last], 50, ""),
        "user_sequence_times": padded([seconds(event) for event in last], 50, 0),
        "user_sequence_types": padded([event["event_type"] for event in last], 50, ""),
        "user_sequence_values": padded([event["value"] for event in last], 50, -1.0),
        "user_sequence_sessions": padded([sessions_until(own, event) for event in last], 50, 0),
        "item_event_count": len(of_item),
        "item_value_mean": mean_of([event["value"] for event in of_item]),
        "item_last_event_time": max(map(seconds, of_item), default=0),
    }
    for owner, known in (("user", own), ("item", of_item)):
        for days in (7, 30, 90):
            values = of_last(known, days, midnight)
            figures[f"{owner}_event_count_{days}d"] = len(values)
            figures[f"{owner}_value_mean_{days}d"] = mean_of(values)
    lately, usually = len(of_last(of_item, 7, midnight)), len(of_last(of_item, 37, midnight))
    trend = math.log2((lately + 5) / 7 / ((usually - lately + 5 * 30 / 7) / 30))
    is_there = any(event["event_time"] < midnight for event in of_item)
    return figures | {"item_trend": pytest.approx(trend if is_there else 0.0, abs=1e-6)}


def sessions_until(events: list[dict[str, Any]], event: dict[str, Any]) -> int:
    times = sorted({seconds(other) for other in events if seconds(other) <= seconds(event)})
    return 1 + sum(later - earlier > 1800 for earlier, later in pairwise(times))


def of_last(events: list[dict[str, Any]], days: int, midnight: datetime) -> list[float]:
    return [event["value"] for event in events if midnight - timedelta(days=days) <= event["event_time"] < midnight]


def mean_of(values: list[float]) -> Any:
    return pytest.approx(sum(values) / len(values), rel=1e-6) if values else -1.0


def seconds(event: dict[str, Any]) -> int:
    return int(event["event_time"].timestamp())


def padded(values: list[Any], length: int, missing: object) -> list[Any]:
    return [*values[:length], *[missing] * (length - len(values))]


def test_every_retrieval_row_has_what_was_known_strictly_before_it(settings: Settings) -> None:
    events = long_log()
    place = world.write_world(settings.state, events, cutoff=LONG_CUTOFF)
    registry.run(settings, place)
    result = training_set.run(settings, place, LONG_CUTOFF, TrainingKind.RETRIEVAL)
    directory = place.training_sets / str(result["training_set"])
    record, rows = TrainingSet.read(directory / MANIFEST), rows_of(directory, *TRAINING_FILES[:3])
    assert record.kind is TrainingKind.RETRIEVAL
    assert record.feature_service == "retrieval"
    assert {"user_windows", "item_windows", "user_sequence"} <= record.views.keys()
    liked = sorted(
        (event for event in events if event["value"] >= 4),
        key=lambda row: tuple(row[name] for name in EVENTS_DATASET.sort),
    )
    assert [(row["user_id"], row["item_id"]) for row in rows] == [(row["user_id"], row["item_id"]) for row in liked]
    for row in rows:
        expected = oracle(events, row, row["event_time"])
        assert {name: row[name] for name in expected} == expected, row["example_id"]
        assert max(row["user_sequence_times"]) < row["request_time"]
    assert any(row["user_sequence_times"][-1] for row in rows), "a sequence that is full"
    for owner in ("user", "item"):
        counts = [[row[f"{owner}_event_count_{days}d"] for days in (7, 30, 90)] for row in rows]
        assert any(week < month < quarter for week, month, quarter in counts), "windows that differ"
    for row in rows_of(directory, TRAINING_FILES[3]):
        midnight = row["event_time"].replace(hour=0, minute=0, second=0, microsecond=0)
        expected = oracle(events, row, midnight)
        assert {name: row[name] for name in expected} == expected, row["example_id"]


def test_what_a_training_set_for_retrieval_holds_is_fitted_on_its_train_rows(
    settings: Settings, place: Namespace
) -> None:
    result = training_set.run(settings, place, world.CUTOFF, TrainingKind.RETRIEVAL)
    directory = place.training_sets / str(result["training_set"])
    fitted = json.loads((directory / "transforms.json").read_text())
    train = rows_of(directory, TRAINING_FILES[0])
    encoded = {column.name for column in FEATURES.retrieval.columns if column.encoding_definition["encoding"] != "none"}
    assert fitted["columns"].keys() == encoded | {"item_id", "user_id"}
    assert fitted["vocabularies"]["event_type"] == ["rating"]
    trends = [row["item_trend"] for row in train if row["item_trend"]]
    assert fitted["columns"]["item_trend"]["mean"] == pytest.approx(sum(trends) / len(trends))


@pytest.mark.parametrize(
    ("service", "column"), [("ranking_windows", "item_trend"), ("ranking_sequences", "user_sequence_sessions")]
)
def test_a_training_set_for_ranking_holds_windows_and_sequences_for_whoever_asks(
    service: str, column: str, settings: Settings, place: Namespace
) -> None:
    from models.dataset import read_dataset

    plain = build(settings, place)
    directory = build(settings.model_copy(update={service: True}), place)
    assert directory != plain
    record, without = (TrainingSet.read(each / MANIFEST) for each in (directory, plain))
    assert (record.feature_service, without.feature_service) == (service, "ranking")
    assert record.views.items() > without.views.items()
    rows, plain_rows = (rows_of(each, *TRAINING_FILES[:3]) for each in (directory, plain))
    for row, narrow in zip(rows, plain_rows, strict=True):
        assert row.items() >= narrow.items()
        expected = {name: value for name, value in oracle(EVENTS, row, row["event_time"]).items() if name in row}
        assert {name: row[name] for name in expected} == expected, row["example_id"]
    assert {"user_event_count_7d", column} <= expected.keys() - plain_rows[0].keys()
    transforms, plain_transforms = (json.loads((each / "transforms.json").read_text()) for each in (directory, plain))
    assert transforms["columns"].items() >= plain_transforms["columns"].items()
    for name, terms in plain_transforms["vocabularies"].items():
        assert set(terms) <= set(transforms["vocabularies"][name])
    assert read_dataset(directory).splits.keys() == record.rows.keys(), "ranking models read it, too"


def test_implicit_feedback_gets_rows_of_both_classes(settings: Settings, place: Namespace) -> None:
    write_schema(place, replace(MOVIELENS, is_implicit=True))
    directory = build(settings, place)
    record, rows = TrainingSet.read(directory / MANIFEST), rows_of(directory, *TRAINING_FILES[:3])
    positives = sum(event["value"] >= 4 for event in EVENTS)
    assert sum(row["label"] for row in rows) == positives
    assert positives < len(rows) - positives <= settings.negatives * positives
    values = [row["value"] for row in rows_of(directory, TRAINING_FILES[0]) if not row["is_drawn"]]
    assert record.prior_mean == pytest.approx(sum(values) / len(values))
    capped = rows_of(build(settings.model_copy(update={"samples_per_user": 2}), place), TRAINING_FILES[0])
    assert max(Counter(row["user_id"] for row in capped if not row["is_drawn"]).values()) == 2
    assert any(row["is_drawn"] for row in capped)
    for row in [row for row in rows if row["is_drawn"]][::29]:
        item = with_missing(latest(place, row["event_time"], "item_id", row["item_id"]))
        assert row["item_event_count"] == item["item_event_count"] > 0


def test_a_cap_and_weights_change_train_rows_alone(settings: Settings, place: Namespace) -> None:
    everything = build(settings, place)
    chosen = settings.model_copy(update={"samples_per_user": 3, "weight_half_life_days": 1.0})
    directory = build(chosen, place)
    assert directory != everything
    assert (
        pq.read_table(directory / "valid.parquet")["item_id"] == pq.read_table(everything / "valid.parquet")["item_id"]
    )
    train = rows_of(directory, TRAINING_FILES[0])
    assert max(Counter(row["user_id"] for row in train).values()) == 3
    assert len({row["sample_weight"] for row in train}) > 1
    assert {row["sample_weight"] for row in rows_of(directory, *TRAINING_FILES[1:3])} == {1.0}
