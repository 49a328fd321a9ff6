"""What `make bench-data` compares is equal, and what differs is found out."""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from infra.bench.data_features import duckdb_features, plain_duckdb_features, polars_features
from infra.bench.data_joins import bare_asof, check_equal, duckdb_engine, write_join_inputs
from infra.bench.data_world import BenchLog, write_bench_log
from infra.bench.errors import BenchError
from infra.bench.process import run_measured
from pipelines.synthetic.scale import LogScale

if TYPE_CHECKING:
    from pathlib import Path

SCALE = LogScale(events=6000, users=60, items=80, days=90, seed=5)
CUTOFF = SCALE.end - timedelta(days=10)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> BenchLog:
    return write_bench_log(SCALE, tmp_path_factory.mktemp("bench") / "log")


def by_id(path: Path) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(path).to_pylist()
    return {row[next(iter(row))]: row for row in rows}


def test_duckdb_and_polars_agree_to_the_bit_and_with_plain_python(log: BenchLog, tmp_path: Path) -> None:
    genres = json.loads((log.folder / "genres.json").read_text())
    for name, compute in (("duckdb", duckdb_features), ("polars", polars_features)):
        (tmp_path / name).mkdir()
        compute(log.events, log.folder / "codes.parquet", genres, CUTOFF, tmp_path / name)
    (tmp_path / "plain").mkdir()
    plain_duckdb_features(log.events, log.folder / "codes.parquet", CUTOFF, tmp_path / "plain")
    for table in ("users", "items"):
        duckdb, *others = (by_id(tmp_path / name / f"{table}.parquet") for name in ("duckdb", "polars", "plain"))
        assert others == [duckdb, duckdb]
    users = by_id(tmp_path / "duckdb" / "users.parquet")
    events = [row for row in pq.read_table(log.events).to_pylist() if row["event_time"] < CUTOFF]
    item_genres = {row["item_id"]: row["genres"] for row in pq.read_table(log.folder / "items.parquet").to_pylist()}
    assert users.keys() == {event["user_id"] for event in events}
    for user in sorted(users)[:20]:
        own = sorted(
            (event for event in events if event["user_id"] == user),
            key=lambda event: (-event["event_time"].timestamp(), event["item_id"]),
        )
        recent = [event["value"] for event in own if event["event_time"] >= CUTOFF - timedelta(days=30)]
        likes = Counter(genre for event in own if event["value"] >= 4 for genre in item_genres[event["item_id"]])
        row = users[user]
        assert row["count"] == len(own)
        assert row["mean"] == sum(event["value"] for event in own) / len(own)
        assert row["count_recent"] == len(recent)
        assert row["mean_recent"] == (sum(recent) / len(recent) if recent else None)
        assert row["last_items"] == [event["item_id"] for event in own[:50]]
        assert row["top_genres"] == sorted(likes, key=lambda genre: (-likes[genre], genre))[:5]


def test_every_way_to_join_gives_the_same_rows(log: BenchLog, tmp_path: Path) -> None:
    snapshots, labels = write_join_inputs(log.events, tmp_path, 500, SCALE.end)
    assert labels == 500
    assert 5000 < snapshots <= SCALE.events
    results = {"bare": bare_asof(tmp_path), "duckdb": duckdb_engine(tmp_path)}
    assert results["bare"]["rows"] == 500
    assert 0 < results["bare"]["unknown"] < 100
    check_equal(results)
    results["duckdb"]["digest"] += 1
    with pytest.raises(BenchError, match="expected the same rows of every engine"):
        check_equal(results)


def test_a_command_is_measured_with_its_children_and_its_failure_is_told(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(
        "import json, subprocess, sys\n"
        "hold = 'x = bytearray(150_000_000); import time; time.sleep(1)'\n"
        "subprocess.run([sys.executable, '-c', hold])\n"
        "print(json.dumps({'answer': 42}))\n"
    )
    (tmp_path / "failing.py").write_text("raise SystemExit('no such log')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    taken = run_measured(["probe"], environment)
    assert taken.result == {"answer": 42}
    assert taken.seconds > 1
    assert taken.peak_bytes > 150_000_000
    (tmp_path / "forking.py").write_text(
        "import os, time\n"
        "held = bytearray(os.urandom(1)) * 200_000_000\n"
        "child = os.fork()\n"
        "time.sleep(1)\n"
        "if not child: os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print('{}')\n"
    )
    peak = run_measured(["forking"], environment).peak_bytes
    assert 200_000_000 < peak < 400_000_000, "what a child shares with its parent counts once"
    with pytest.raises(BenchError, match=r"failing: ended with status 1: no such log"):
        run_measured(["failing"], environment)
