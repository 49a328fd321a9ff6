"""kill -9 of the ingestion and of the online jobs at many moments: the next run ends as if nothing had happened."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from feature_repo.contracts.datasets import EVENTS, QUARANTINE
from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.manifests import OnlineSnapshot
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import tree_sha256
from pipelines.errors import JobError
from pipelines.feast_store.store import open_store
from pipelines.io.lake import stored_dataset
from pipelines.settings import Settings
from tests import feast_world
from tests.movielens import ITEMS, USERS
from tests.redis_server import redis_server
from tests.synthetic import write_movielens_100k

DATASETS = (EVENTS, ITEMS, USERS, QUARANTINE)


def start(state: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines", *arguments],
        env={**os.environ, "KESTREL_STATE": str(state), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def finish(state: Path, *arguments: str, **environment: str) -> float:
    """Run a job to its good end and return how long it took, in seconds."""
    began = time.monotonic()
    with start(state, *arguments, **environment) as process:
        assert process.wait() == 0
    return time.monotonic() - began


def kill_after(seconds: float, state: Path, *arguments: str, **environment: str) -> bool:
    """Start a job, kill it, and tell whether that came before its end."""
    with start(state, *arguments, **environment) as process:
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    return process.returncode == -signal.SIGKILL


def kill_at(seconds: float, state: Path, *arguments: str, **environment: str) -> None:
    """Start a job and kill it so long afterwards, or as much sooner as it takes where it is quicker this time."""
    while not kill_after(seconds, state, *arguments, **environment):
        seconds *= 0.6


def stop_when_it_holds_a_lock(process: subprocess.Popen[bytes]) -> None:
    while not any(
        kind == "FLOCK" and int(pid) == process.pid
        for _, kind, _, _, pid, *_ in map(str.split, Path("/proc/locks").read_text().splitlines())
    ):
        assert process.poll() is None, "the job ended before it held a lock"
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)


def readable_rows(state: Path) -> set[int]:
    """Rows of each dataset that a reader gets; a table that is not whole refuses to be read."""
    rows = set()
    for dataset in DATASETS:
        try:
            rows.add(stored_dataset(Namespace(state, "made-up"), dataset).snapshot().rows)
        except JobError:
            continue
    return rows


def test_an_ingestion_killed_at_any_moment_is_mended_by_the_next(tmp_path: Path) -> None:
    source = write_movielens_100k(tmp_path / "source", users=60, items=80, events=1500)
    arguments = ("ingest", "--namespace", "made-up", "--source", str(source))
    took = finish(tmp_path / "whole", *arguments)
    expected = readable_rows(tmp_path / "whole")
    for share in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9):
        kill_at(took * share, tmp_path / "cut", *arguments)
    assert readable_rows(tmp_path / "cut") <= expected
    finish(tmp_path / "cut", *arguments)
    whole, cut = (Namespace(tmp_path / name, "made-up") for name in ("whole", "cut"))
    for dataset in DATASETS:
        assert stored_dataset(cut, dataset).snapshot().checksum == stored_dataset(whole, dataset).snapshot().checksum
    assert tree_sha256(cut.root / "lake") == tree_sha256(whole.root / "lake")


@pytest.mark.parametrize(
    "arguments",
    [("statistics",), ("check", "--cutoff", "1998-04-20"), ("channels", "--cutoff", "1998-04-20")],
    ids=lambda job: job[0],
)
def test_what_reads_the_lake_killed_at_any_moment_is_mended_by_the_next(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    source = write_movielens_100k(tmp_path / "source", users=20, items=40, events=100)
    finish(tmp_path / "whole", "ingest", "--namespace", "made-up", "--source", str(source))
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    command = (*arguments, "--namespace", "made-up")
    took = finish(tmp_path / "whole", *command)
    for share in (0.6, 0.75, 0.9):
        kill_at(took * share, tmp_path / "cut", *command)
    finish(tmp_path / "cut", *command)
    whole, cut = (Namespace(tmp_path / name, "made-up").root for name in ("whole", "cut"))
    assert tree_sha256(cut / "statistics") == tree_sha256(whole / "statistics")
    assert tree_sha256(cut / "reports") == tree_sha256(whole / "reports")
    assert tree_sha256(cut / "channels") == tree_sha256(whole / "channels")


@pytest.mark.parametrize(
    "job", [("ingest", "--source"), ("statistics",), ("check", "--cutoff", "1998-04-20")], ids=lambda job: job[0]
)
def test_two_runs_at_once_end_as_one_alone(tmp_path: Path, job: tuple[str, ...]) -> None:
    """The second comes while the first holds a lock, and ends well or as transient; once more gives nothing else."""
    source = str(write_movielens_100k(tmp_path / "source", users=60, items=100, events=2500))
    ingestion = ("ingest", "--source", source, "--namespace", "made-up")
    command = ingestion if job[0] == "ingest" else (*job, "--namespace", "made-up")
    states = (tmp_path / "alone", tmp_path / "at-once")
    if command != ingestion:
        finish(states[0], *ingestion)
        shutil.copytree(*states)
    finish(states[0], *command)
    with start(states[1], *command) as first:
        stop_when_it_holds_a_lock(first)
        try:
            assert start(states[1], *command).wait() in {ExitCode.OK, ExitCode.TRANSIENT}
        finally:
            first.send_signal(signal.SIGCONT)
        assert first.wait() == ExitCode.OK
    alone, at_once = (Namespace(state, "made-up").root for state in states)
    made = {name for name in ("lake", "statistics", "reports") if (alone / name).exists()}
    for name in made:
        assert tree_sha256(at_once / name) == tree_sha256(alone / name)
    finish(states[1], *command)
    for name in made:
        assert tree_sha256(at_once / name) == tree_sha256(alone / name)


def test_an_ingestion_without_room_asks_for_some_and_the_next_ends_the_same(tmp_path: Path) -> None:
    source = write_movielens_100k(tmp_path / "source", users=20, items=40, events=90)
    arguments = ("ingest", "--namespace", "made-up", "--source", str(source))
    log = (source / "u.data").read_text(encoding="latin-1")
    (source / "u.data").write_text("".join(log.splitlines(keepends=True)[:60]), encoding="latin-1")
    finish(tmp_path / "cut", *arguments)
    before = tree_sha256(tmp_path / "cut" / "data" / "made-up" / "lake")
    (source / "u.data").write_text(log, encoding="latin-1")
    ended = subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        env={**os.environ, "KESTREL_STATE": str(tmp_path / "cut")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == ExitCode.TRANSIENT
    assert "free some of the disk" in ended.stderr.splitlines()[-1]
    assert tree_sha256(tmp_path / "cut" / "data" / "made-up" / "lake") == before
    for state in ("whole", "cut"):
        finish(tmp_path / state, *arguments)
    whole, cut = (Namespace(tmp_path / name, "made-up") for name in ("whole", "cut"))
    assert tree_sha256(cut.root / "lake") == tree_sha256(whole.root / "lake") != before


def registered_names(place: Namespace) -> tuple[list[str], list[str]]:
    """Views and services of a namespace's registry."""
    store = open_store(Settings(state=place.state), place)
    views, services = store.list_feature_views(), store.list_feature_services()
    return sorted(view.name for view in views), sorted(service.name for service in services)


@pytest.mark.timeout(600)
def test_online_jobs_killed_at_any_moment_are_mended_by_the_next(tmp_path: Path) -> None:
    place = feast_world.write_world(tmp_path, feast_world.make_events())
    interval = ("--namespace", place.name, "--cutoff", f"{feast_world.CUTOFF:%Y-%m-%d}")
    with redis_server() as url, redis.Redis.from_url(url) as client:
        register = ("registry", "--namespace", place.name)
        took = finish(tmp_path, *register, KESTREL_REDIS_URL=url)
        registered = registered_names(place)
        shutil.rmtree(place.feast)
        kill_at(took * 0.75, tmp_path, *register, KESTREL_REDIS_URL=url)
        finish(tmp_path, *register, KESTREL_REDIS_URL=url)
        assert registered_names(place) == registered
        took = finish(tmp_path, "materialize", *interval, KESTREL_REDIS_URL=url)
        finish(tmp_path, "publish", *interval, KESTREL_REDIS_URL=url)
        snapshot = OnlineSnapshot.read(place.online_current)
        contents = {key: client.hgetall(key) for key in client.scan_iter()}
        client.flushall()
        place.online_current.unlink()
        for job, share in (("materialize", 0.6), ("materialize", 0.9), ("publish", 0.4), ("publish", 0.7)):
            kill_at(took * share, tmp_path, job, *interval, KESTREL_REDIS_URL=url)
        assert not place.online_current.exists() or OnlineSnapshot.read(place.online_current) == snapshot
        finish(tmp_path, "materialize", *interval, KESTREL_REDIS_URL=url)
        finish(tmp_path, "publish", *interval, KESTREL_REDIS_URL=url)
        assert OnlineSnapshot.read(place.online_current) == snapshot
        verify = ("verify-online", "--namespace", place.name)
        kill_at(took * 0.5, tmp_path, *verify, KESTREL_REDIS_URL=url)
        finish(tmp_path, *verify, KESTREL_REDIS_URL=url)
        assert {key: client.hgetall(key) for key in client.scan_iter()} == contents
