"""`verify-online` on a real Redis: nothing differs after a materialisation, and whatever is wrong is named."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
import redis
from feast.infra.compute_engines.local.compute import LocalComputeEngine

from feature_repo.contracts.datasets import EVENT_TIME
from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.places import Namespace
from pipelines.embeddings.tables import online_tables
from pipelines.errors import JobError
from pipelines.feast_store import store as store_module
from pipelines.feast_store.online import stored_entities
from pipelines.feast_store.online_cutoff import online_lock
from pipelines.feast_store.online_writes import feature_field, time_field, write_rows
from pipelines.feast_store.store import repo_config
from pipelines.feast_store.value_bytes import time_bytes, value_bytes
from pipelines.feast_store.verification import OnlineRow, compare
from pipelines.features.tables import feature_table
from pipelines.jobs import materialize, registry, verify_online
from pipelines.settings import Settings
from tests import feast_world as world
from tests.movielens import ITEM_PROFILE, USER_ACTIVITY, USER_HISTORY, USER_PROFILE
from tests.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENTS = world.make_events()
EVERYBODY = 1000

pytestmark = pytest.mark.filterwarnings(
    # Feast's own code, not ours: it reads Arrow's pandas metadata through names that pandas will rename.
    "default::DeprecationWarning:feast",
)


@dataclass(frozen=True)
class Materialised:
    """A namespace as it was right after its materialisation: settings, a copy of its files, and what Redis held."""

    settings: Settings
    copy: Path
    redis: dict[bytes, dict[bytes, bytes]]


@pytest.fixture(scope="module")
def materialised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Materialised]:
    folder = tmp_path_factory.mktemp("verify")
    with redis_server() as url:
        settings = Settings(state=folder / "state", redis_url=url)
        place = world.write_world(settings.state, EVENTS)
        registry.run(settings, place)
        materialize.run(settings, place, world.CUTOFF)
        shutil.copytree(settings.state, folder / "copy")
        with redis.Redis.from_url(url) as client:
            stored = {key: client.hgetall(key) for key in client.scan_iter()}
        yield Materialised(settings, folder / "copy", stored)


@pytest.fixture
def settings(materialised: Materialised) -> Settings:
    """Put everything back to what it was after the materialisation."""
    state = materialised.settings.state
    shutil.rmtree(state)
    shutil.copytree(materialised.copy, state)
    with redis.Redis.from_url(materialised.settings.redis_url) as client, client.pipeline() as pipeline:
        pipeline.flushall()
        for key, fields in materialised.redis.items():
            pipeline.hset(key, mapping=fields)
        pipeline.execute()
    return materialised.settings


@pytest.fixture
def place(settings: Settings) -> Namespace:
    return Namespace(settings.state, "test-set")


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url) as client:
        yield client


def key_of(client: redis.Redis, place: Namespace, join_key: str, entity: str) -> bytes:
    return stored_entities(client, place.name.replace("-", "_"), join_key)[entity]


def mismatches(settings: Settings, place: Namespace, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines that a failing verification logs, one for each mismatch."""
    with caplog.at_level(logging.ERROR), pytest.raises(JobError, match=r"mismatches in \d+ values.*materialize"):
        verify_online.run(settings, place, EVERYBODY)
    return [record.getMessage() for record in caplog.records if "expected" in record.getMessage()]


def test_nothing_differs_after_a_materialisation(settings: Settings, place: Namespace) -> None:
    result = verify_online.run(settings, place, EVERYBODY)
    assert result["entities"] == {"user_id": 30, "item_id": 26}
    assert result["mismatches"] == result["newer"] == 0
    user_values = sum(len(group.features) for group in (USER_ACTIVITY, USER_PROFILE, USER_HISTORY))
    assert int(str(result["values"])) > 30 * 2 * user_values
    assert verify_online.run(settings, place, 5)["entities"] == {"user_id": 5, "item_id": 5}


def test_corrections_and_vanished_rows_arrive(settings: Settings, place: Namespace) -> None:
    rows = world.read(feature_table(place, USER_ACTIVITY))
    for row in rows:
        row["user_last_items"] = row["user_last_items"][::-1]
    world.write_features(place, USER_ACTIVITY, [row for row in rows if row["user_id"] != "u3"])
    with pytest.raises(
        JobError, match=r"user_activity_\w+ was written anew since; run 'python -m pipelines materialize"
    ):
        verify_online.run(settings, place, EVERYBODY)
    materialize.run(settings, place, world.CUTOFF)
    assert verify_online.run(settings, place, EVERYBODY)["mismatches"] == 0


def test_a_writer_that_skips_what_is_not_newer_is_found_out(
    settings: Settings, place: Namespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Feast's own writer without `skip_dedup`: corrected values of the same event time never arrive."""

    def as_feast_would(settings: Settings, place: Namespace) -> object:
        config = repo_config(settings, place)
        config.batch_engine_config = "local"
        config.online_store.skip_dedup = False
        return store_module.FeatureStore(config=config)

    rows = world.read(feature_table(place, USER_ACTIVITY))
    latest = max((row for row in rows if row["user_id"] == "u4"), key=lambda row: row["event_time"])
    latest["user_event_count"] += 1000
    world.write_features(place, USER_ACTIVITY, rows)
    monkeypatch.setattr(materialize, "open_store", as_feast_would)
    materialize.run(settings, place, world.CUTOFF)
    lines = mismatches(settings, place, caplog)
    assert len(lines) == 2
    for line, reader in zip(lines, ("the layout", "Feast"), strict=True):
        assert f"feature user_event_count, user_id 'u4', read by {reader}" in line
        assert f"expected {latest['user_event_count']}, received {latest['user_event_count'] - 1000}" in line


def test_damage_in_redis_is_named(
    settings: Settings, place: Namespace, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    user, item = key_of(client, place, "user_id", "u5"), key_of(client, place, "item_id", "i7")
    wrong = value_bytes(pa.array([["Musical"]], pa.list_(pa.string()))).to_pylist()[0]
    client.hset(user, mapping={feature_field(USER_ACTIVITY.view_name, "user_top_genres"): wrong})
    client.hdel(item, feature_field(ITEM_PROFILE.view_name, "item_release_year"))  # type: ignore[arg-type]  # it takes bytes
    lines = mismatches(settings, place, caplog)
    assert sorted(line.partition(" read by")[0] for line in lines) == sorted(
        2 * [f"view {USER_ACTIVITY.view_name}, feature user_top_genres, user_id 'u5',"]
        + 2 * [f"view {ITEM_PROFILE.view_name}, feature item_release_year, item_id 'i7',"]
    )
    materialize.run(settings, place, world.CUTOFF)
    assert verify_online.run(settings, place, EVERYBODY)["mismatches"] == 0


def test_bytes_that_are_no_value_are_named_and_hide_nothing_else(
    settings: Settings, place: Namespace, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    user = key_of(client, place, "user_id", "u5")
    client.hset(user, mapping={feature_field(USER_PROFILE.view_name, "user_age"): b"\xff\xff"})
    lines = mismatches(settings, place, caplog)
    assert {line.partition("user_id ")[2].partition(",")[0] for line in lines} == {"'u5'"}
    assert any("feature user_age" in line and "received b'\\xff\\xff'" in line for line in lines)


def test_an_entity_that_no_table_has_is_a_mismatch(
    settings: Settings, place: Namespace, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    write_profile(client, place, "stranger", world.EPOCH)
    lines = mismatches(settings, place, caplog)
    assert any("(the row), user_id 'stranger'" in line and "expected None" in line for line in lines)


def write_profile(client: redis.Redis, place: Namespace, user: str, time: object) -> None:
    row = {"user_id": user, "user_age": 30.0, "user_gender": "F", "user_occupation": "writer", EVENT_TIME.name: time}
    features = [column.name for column in USER_PROFILE.features]
    types = [pa.string(), pa.float32(), pa.string(), pa.string(), pa.timestamp("us", tz="UTC")]
    schema = pa.schema(list(zip(row, types, strict=True)))
    project = place.name.replace("-", "_")
    rows = pa.RecordBatch.from_pylist([row], schema)
    write_rows(client, rows, project, USER_PROFILE.view_name, "user_id", features, EVENT_TIME.name)


def test_what_came_after_the_materialisation_is_left_out(
    settings: Settings, place: Namespace, client: redis.Redis
) -> None:
    """The stream writes rows whose event time is at or after the cutoff, of users old and new."""
    write_profile(client, place, "new-user", world.CUTOFF)
    now = int((world.CUTOFF + timedelta(seconds=3) - world.EPOCH) / timedelta(microseconds=1))
    client.hset(
        key_of(client, place, "user_id", "u1"),
        mapping={
            time_field(USER_ACTIVITY.view_name): time_bytes(np.array([now])).to_pylist()[0],
            feature_field(USER_ACTIVITY.view_name, "user_event_count"): value_bytes(pa.array([77])).to_pylist()[0],
        },
    )
    result = verify_online.run(settings, place, EVERYBODY)
    assert result["mismatches"] == 0
    assert result["newer"] == 2


def test_a_row_older_than_its_lifetime_is_missing_for_both() -> None:
    group = replace(USER_ACTIVITY, ttl_days=2)
    nothing = dict.fromkeys(column.name for column in group.features)
    stored = {**nothing, "user_event_count": 30}
    for days, differs in ((1, True), (3, False)):
        time = world.CUTOFF - timedelta(days=days)
        done = compare(
            group, world.CUTOFF, ({"u": nothing}, {"u": time}), ({"u": OnlineRow(time, stored)}, {"u": stored})
        )
        assert bool(done.mismatches) == differs


def test_nothing_to_verify_says_what_to_run(settings: Settings, place: Namespace) -> None:
    (place.online / "materialized.json").unlink()
    with pytest.raises(JobError, match="found none; run 'materialize' first"):
        verify_online.run(settings, place, EVERYBODY)


def test_it_waits_for_no_materialisation(settings: Settings, place: Namespace) -> None:
    with online_lock(place), pytest.raises(JobError, match="another job is writing it"):
        verify_online.run(settings, place, EVERYBODY)


def test_the_command_s_exit_code(settings: Settings, place: Namespace, client: redis.Redis) -> None:
    command = [sys.executable, "-m", "pipelines", "verify-online", "--namespace", place.name, "--sample", "40"]
    given = {**os.environ, "KESTREL_STATE": str(settings.state), "KESTREL_REDIS_URL": settings.redis_url}
    write_profile(client, place, "stranger", world.EPOCH)
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.TERMINAL
    assert "(the row), user_id 'stranger'" in done.stderr


def test_the_arrow_writer_and_feast_s_own_write_the_same_bytes(
    settings: Settings, place: Namespace, client: redis.Redis
) -> None:
    ours = {key: client.hgetall(key) for key in client.scan_iter()}
    client.flushall()
    config = repo_config(settings, place)
    config.batch_engine_config = "local"
    feast_own = store_module.FeatureStore(config=config)
    assert type(feast_own._get_provider().batch_engine) is LocalComputeEngine
    names = [group.view_name for group, _ in online_tables(settings, place)]
    feast_own.materialize(world.EPOCH, world.CUTOFF, names)
    assert {key: client.hgetall(key) for key in client.scan_iter()} == ours
