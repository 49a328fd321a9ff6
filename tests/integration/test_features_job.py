"""The feature and embedding jobs as processes: killed and run again, run twice, with a future planted."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.embeddings import EMBEDDING_GROUPS, EMBEDDINGS
from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.places import REPORT, Namespace
from feature_repo.contracts.publishing import tree_sha256
from pipelines.features.tables import feature_table
from tests.shop_log import MAPPING, shop, write_shop
from tests.synthetic import write_movielens_100k

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]

CUTOFF = "1998-03-01"
NAMESPACE = "synthetic"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipelines", *arguments, "--namespace", NAMESPACE]


def environment(state: Path) -> dict[str, str]:
    return {**os.environ, "KESTREL_STATE": str(state), "KESTREL_SPARK_DRIVER_MEMORY": "1g"}


def job(state: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(command(*arguments), env=environment(state), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def write_events(folder: Path, *, future: bool) -> Path:
    """Write the synthetic data set; with a future, every user rates an item 1 after the cutoff."""
    write_movielens_100k(folder, users=40, items=60, events=1000)
    if future:
        with (folder / "u.data").open("a") as stream:
            stream.writelines(f"{user}\t{60 - user % 7}\t1\t{888800000 + user}\n" for user in range(1, 41))
    return folder


def kill_while_it_writes(state: Path, name: str, written: str) -> None:
    """Start a job and kill it as soon as there is a first file like `written`, staged or published, in its folder."""
    folder = state / "data" / NAMESPACE / name
    with subprocess.Popen(
        command(name, "--cutoff", CUTOFF),
        env=environment(state),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 300
        while not any(folder.rglob(written)):
            assert process.poll() is None, "the job ended before it wrote anything"
            assert time.monotonic() < deadline, "the job wrote nothing"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)


def run_without_room(state: Path) -> None:
    """Start the job where no process, Spark's Java included, may write a file of more than 16 KiB."""
    done = subprocess.run(
        command("features", "--cutoff", CUTOFF),
        env=environment(state),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 10, 16 << 10)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.TRANSIENT, done.stderr[-3000:]
    assert "free some of the disk" in done.stderr.splitlines()[-1]
    assert not any((state / "data" / NAMESPACE / "features").rglob("*.parquet"))


def test_neither_a_full_disk_nor_a_kill_nor_a_planted_future_changes_anything(tmp_path: Path) -> None:
    """That a second run changes nothing is seen in the end-to-end story, where there is one anyway."""
    plain, planted = tmp_path / "plain", tmp_path / "planted"
    job(plain, "ingest", "--source", str(write_events(tmp_path / "a", future=False)))
    expected = job(plain, "features", "--cutoff", CUTOFF)["views"]
    job(planted, "ingest", "--source", str(write_events(tmp_path / "b", future=True)))
    run_without_room(planted)
    kill_while_it_writes(planted, "features", "*.parquet")
    assert job(planted, "features", "--cutoff", CUTOFF)["views"] == expected
    leftovers = [path for path in (planted / "data").rglob("*") if ".part" in path.name or path.name.startswith(".")]
    assert leftovers == []


def test_a_view_that_a_changed_schema_brings_is_whole_whatever_the_start(tmp_path: Path) -> None:
    """Of a table that was never written, days before the start cannot stay as they are."""
    source = write_shop(tmp_path / "source", *shop())
    changed, mapping = (
        MAPPING.replace("{name: category, kind", "{name: shelf, column: category, kind"),
        tmp_path / "m.yaml",
    )
    found = {}
    for name, text, interval in (
        ("fresh", changed, []),
        ("changed", MAPPING, []),
        ("changed", changed, ["--start", "2024-03-05"]),
    ):
        mapping.write_text(text, encoding="utf-8")
        job(tmp_path / name, "ingest", "--source", str(source), "--mapping", str(mapping))
        found[name] = job(tmp_path / name, "features", "--cutoff", "2024-03-07", *interval)["views"]
    assert found["changed"] == found["fresh"]


def test_embeddings_are_the_same_twice_and_know_no_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind: snapshots, feature tables and report, to the byte, also after a kill between two kinds' snapshots."""
    results, contents = [], []
    for name, future in (("plain", False), ("planted", True)):
        job(tmp_path / name, "ingest", "--source", str(write_events(tmp_path / f"{name}-source", future=future)))
        if future:
            monkeypatch.setenv("KESTREL_EMBEDDINGS", "item2vec,deepwalk")
            kill_while_it_writes(tmp_path / name, "embeddings", "*.json")
            assert not list((tmp_path / name).rglob("report.html"))
        monkeypatch.setenv("KESTREL_EMBEDDINGS", ",".join(EMBEDDINGS))
        results.append(job(tmp_path / name, "embeddings", "--cutoff", CUTOFF))
        place = Namespace(tmp_path / name, NAMESPACE)
        tables = {group.name: feature_table(place, group).snapshot().read() for group in EMBEDDING_GROUPS}
        contents.append((tables, (place.reports / results[-1]["report"] / REPORT).read_text()))
        assert not (place.root / ".embeddings").exists()
    assert results[0] == results[1]
    assert contents[0] == contents[1]
    assert len({tree_sha256(tmp_path / name / "data" / NAMESPACE / "embeddings") for name in ("plain", "planted")}) == 1
    (tables, page), snapshots = contents[0], results[0]["embeddings"]
    assert list(snapshots) == sorted(EMBEDDINGS)
    end = datetime.fromisoformat(CUTOFF).replace(tzinfo=UTC)
    for kind in EMBEDDINGS.values():
        snapshot = pq.read_table(place.root / snapshots[kind.name]["item_embeddings"])
        for group in (kind.item_group, kind.user_group):
            vector, fitted = (column.name for column in group.features)
            rows = tables[group.name]
            assert set(rows.column(fitted).to_pylist()) == {snapshots[kind.name]["sha256"]}
            assert set(rows.column("event_time").to_pylist()) == {end - timedelta(microseconds=1)}
            lengths = np.linalg.norm(np.array(rows.column(vector).to_pylist()), axis=1)
            np.testing.assert_allclose(lengths, 1, rtol=1e-5)
        items = tables[kind.item_group.name]
        assert items.column("item_id").equals(snapshot.column("item_id"))
        assert items.column(kind.item_group.features[0].name).equals(snapshot.column("embedding"))
        assert snapshot.num_rows == snapshots[kind.name]["items"] > 20
        assert tables[kind.user_group.name].num_rows > 20
        assert f"<h4>{kind.name}</h4>" in page
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?https?:""", page), "the page needs nothing from elsewhere"
    assert "Film 1 é" in page
