"""The real stack on made-up data, taken once through what its users do.

Fixtures are stages of one story, each built on the one before: `first` (a demo whose own process is killed), `second`
(the same again, brought by a mapping), `backfill`. Tests look at what they left, in any order. The stack goes down
with the story's last test: idle, Airflow would take a tenth of a core from all tests that follow.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import redis
from rich.console import Console

from feature_repo.contracts.ids import path_part
from feature_repo.contracts.intervals import model_name
from feature_repo.contracts.manifests import Release
from feature_repo.contracts.places import DATASET_MANIFEST, Namespace, Serving
from infra.local.airflow_api import ENDED, Airflow, DagRun, TaskRun
from infra.local.settings import initial_settings, read_settings
from infra.local.stack import stack_status
from infra.local.watching import Chain, in_order, watch
from serving.protocol.free_ports import free_ports
from tests.synthetic import GENRES, write_movielens_100k

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infra.local.settings import LocalSettings

REPOSITORY = Path(__file__).parents[2]
FILMS = Path(__file__).parent / "films.yaml"
NAMESPACE = "made-up"
MODEL = model_name(NAMESPACE, "ranking")
LEAKED = "leaked"
"""A namespace of its own."""


@dataclass
class Stack:
    """A stack of its own: state folder, ports, and what one can ask it."""

    state: Path
    source: Path
    environment: dict[str, str]
    settings: LocalSettings
    http: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=30))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "infra.local", *arguments]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=REPOSITORY,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )

    def stand(self) -> None:
        """Bring up what does not run, or ails: whatever a test has left of the stack, the next one finds all of it."""
        ailing = [row.name for row in stack_status(self.state, self.environment) if not row.is_healthy]
        if ailing:
            up = self.run("up")
            assert up.returncode == 0, f"{', '.join(ailing)} did not come up again:\n{up.stderr}"

    def job(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a plane's job by hand, as its documentation says: with the stack's environment."""
        return self.run("run", "--", sys.executable, "-m", *arguments)

    def plane(self, job: str, *arguments: str) -> dict[str, Any]:
        """Run a job of the data plane on the namespace LEAKED; return its result."""
        done = self.job("pipelines", job, "--namespace", LEAKED, *arguments)
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    def airflow(self) -> Airflow:
        return Airflow(self.settings)

    def recommend(self, user: str, **parameters: Any) -> dict[str, Any]:
        response = self.http.get(f"{self.settings.recommender_uri}/recommend/{path_part(user)}", params=parameters)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    def served_versions(self) -> dict[str, str]:
        """Version → state, from the model server's own status."""
        response = self.http.get(f"{self.settings.model_server_rest}/v1/models/{MODEL}")
        states = response.json().get("model_version_status", [])
        return {version["version"]: version["state"] for version in states if version["state"] != "END"}

    def alias(self, name: str) -> str | None:
        """The registered version that an alias names."""
        response = self.http.get(
            f"{self.settings.mlflow_uri}/api/2.0/mlflow/registered-models/alias", params={"name": MODEL, "alias": name}
        )
        return response.json()["model_version"]["version"] if response.status_code == 200 else None

    def release(self) -> Release:
        return Release.read(Serving(self.state).current_release(NAMESPACE))

    def serving(self) -> tuple[str | None, dict[str, str], str]:
        """All that a rejected model must not move: alias, served versions, release."""
        return self.alias("champion"), self.served_versions(), self.release().ranker.version

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.settings.redis_url)

    def online_contents(self) -> dict[bytes, dict[bytes, bytes]]:
        with self.redis() as client:
            hashes = [key for key in client.scan_iter(count=1000) if client.type(key) == b"hash"]
            return {key: client.hgetall(key) for key in hashes}

    def checksums(self) -> dict[str, str]:
        """Canonical checksum of every partition of every table of the lake and of the features."""
        root = Namespace(self.state, NAMESPACE).root
        return {
            f"{manifest.parent.relative_to(root)}/{name}": partition["sha256"]
            for manifest in sorted(root.rglob(DATASET_MANIFEST))
            for name, partition in json.loads(manifest.read_text())["partitions"].items()
        }

    def latest_tables(self) -> dict[str, str]:
        """Of the tables that hold the latest state only, which no past interval may take back."""
        return {name: checksum for name, checksum in self.checksums().items() if "user_history" in name}

    def snapshot(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(Namespace(self.state, NAMESPACE).online_current.read_text())
        return record

    def run_count(self, dag: str) -> int:
        airflow = self.airflow()
        try:
            return int(airflow._call("GET", f"/api/v2/dags/{dag}/dagRuns", params={"limit": 1})["total_entries"])
        finally:
            airflow.close()

    def follow(self, run_id: str) -> Chain:
        """Watch the runs that a refresh set off to their end."""
        airflow = self.airflow()
        try:
            return watch(
                airflow, airflow.run("feature_refresh", run_id), Console(file=sys.stderr, force_terminal=False)
            )
        finally:
            airflow.close()

    def ended(self, dag: str, conf: dict[str, Any], within_s: float = 120) -> tuple[DagRun, list[TaskRun], str]:
        """Trigger a run by hand and wait for its end: the run, its tasks, and the log of the first."""
        airflow = self.airflow()
        try:
            run = airflow.trigger(dag, conf)
            wait_until(lambda: airflow.run(dag, run.run_id).state in ENDED, within_s, f"the end of {run.run_id}")
            tasks = in_order(airflow.tasks(run))
            return airflow.run(dag, run.run_id), tasks, "\n".join(airflow.log(run, tasks[0]))
        finally:
            airflow.close()

    def xcom(self, run: DagRun, task: str) -> dict[str, Any]:
        airflow = self.airflow()
        try:
            return airflow.result(run, task)
        finally:
            airflow.close()


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack that is not started yet, on free ports, with made-up data; nothing of it is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="kestrel-e2e-"))
    source = write_movielens_100k(folder / "made-up", users=260, items=300, events=16000, seed=11, visits=6)
    ports = dict(zip(("6390", "5000", "8080", "8500", "8501", "8000"), map(str, free_ports(6)), strict=True))
    state = folder / "state"
    state.mkdir()
    text = re.sub(r"127\.0\.0\.1:(\d+)", lambda match: f"127.0.0.1:{ports[match[1]]}", initial_settings())
    (state / "settings.env").write_text(
        re.sub("#KESTREL_SPARK_DRIVER_MEMORY=.*", "KESTREL_SPARK_DRIVER_MEMORY=1g", text)
    )
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("KESTREL_", "AIRFLOW"))}
    spark = {"KESTREL_SPARK_OPTIONS": os.environ["KESTREL_SPARK_OPTIONS"]}
    environment = ours | spark | {"KESTREL_STATE": str(state), "KESTREL_ARG_NAMESPACE": NAMESPACE}
    environment["KESTREL_ARG_DATA"] = str(source)
    stack = Stack(state, source, environment, read_settings(state, {"KESTREL_STATE": str(state)}))
    try:
        yield stack
    finally:
        stack.http.close()
        stack.run("down")
        keep = os.environ.get("KEEP_E2E_STATE")
        if keep:
            shutil.move(state, keep)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Stage:
    """What a stage left behind."""

    chain: Chain
    checksums: dict[str, str]
    snapshot: dict[str, Any]
    verdict: dict[str, Any]
    serving: tuple[str | None, dict[str, str], str]
    output: str


def looked_at(stack: Stack, chain: Chain, output: str) -> Stage:
    verdict = stack.xcom(chain.runs["model_training"], "gate")
    return Stage(chain, stack.checksums(), stack.snapshot(), verdict, stack.serving(), output)


@pytest.fixture(scope="module")
def first(stack: Stack) -> Stage:
    """A demo whose own process is killed right after it triggered the first DAG."""
    lines = []
    with subprocess.Popen(
        stack.command("demo"),
        cwd=REPOSITORY,
        env=stack.environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as demo:
        assert demo.stderr
        for line in demo.stderr:
            lines.append(line)
            triggered = re.search(r"Triggered feature_refresh \((.+)\):", line)
            if triggered:
                demo.send_signal(signal.SIGKILL)
                break
        else:
            pytest.fail(f"the demo ended before it triggered anything:\n{''.join(lines)}")
    return looked_at(stack, stack.follow(triggered[1]), "".join(lines))


@pytest.fixture(autouse=True)
def standing(stack: Stack, first: Stage) -> None:
    """The stack stands before each test, so that one that failed with it half down takes no other with it."""
    stack.stand()


def whole_demo(stack: Stack, **environment: str) -> Stage:
    done = stack.run("demo", **environment)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    triggered = re.search(r"Triggered feature_refresh \((.+)\):", output)
    assert triggered, output
    return looked_at(stack, stack.follow(triggered[1]), output)


@pytest.fixture(scope="module")
def second(stack: Stack, first: Stage, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The same data again, now brought as somebody's own: by a mapping of files in three formats."""
    folder = tmp_path_factory.mktemp("mapped") / "made-up"
    folder.mkdir()
    shutil.copy(stack.source / "u.data", folder / "ratings.tsv")
    shutil.copy(stack.source / "u.user", folder / "people.csv")
    with (
        (stack.source / "u.item").open(newline="", encoding="latin-1") as items,
        (folder / "films.jsonl").open("w") as films,
    ):
        for item, title, released, _, _, *flags in csv.reader(items, delimiter="|"):
            genres = [name for name, flag in zip(GENRES, flags, strict=True) if flag == "1"]
            film = {"id": item, "title": title.partition(" (")[0], "year": released[-4:], "genres": genres}
            films.write(json.dumps(film) + "\n")
    return whole_demo(stack, KESTREL_ARG_DATA=str(folder), KESTREL_ARG_SOURCE=str(FILMS))


@dataclass(frozen=True)
class Backfill:
    """A refresh of a past interval, with what was there before and after."""

    chain: Chain
    online_before: dict[bytes, dict[bytes, bytes]]
    online_after: dict[bytes, dict[bytes, bytes]]
    latest_before: dict[str, str]
    latest_after: dict[str, str]
    snapshot_before: dict[str, Any]
    snapshot_after: dict[str, Any]
    trainings_before: int
    trainings_after: int


@pytest.fixture(scope="module")
def backfill(stack: Stack, second: Stage) -> Backfill:
    """A refresh up to a month before what is online."""
    online, latest, snapshot = stack.online_contents(), stack.latest_tables(), stack.snapshot()
    trainings = stack.run_count("model_training")
    cutoff = datetime.fromisoformat(snapshot["cutoff"]).astimezone(UTC) - timedelta(days=30)
    airflow = stack.airflow()
    try:
        conf = {"namespace": NAMESPACE, "source": str(stack.source), "cutoff": f"{cutoff:%Y-%m-%d}"}
        run = airflow.trigger("feature_refresh", conf)
    finally:
        airflow.close()
    chain = stack.follow(run.run_id)
    return Backfill(
        chain,
        online,
        stack.online_contents(),
        latest,
        stack.latest_tables(),
        snapshot,
        stack.snapshot(),
        trainings,
        stack.run_count("model_training"),
    )


@pytest.fixture(scope="module")
def leaked(stack: Stack, backfill: Backfill, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The verdict on one candidate, trained by hand on data whose attributes know every label.

    A user likes a film exactly where the user's occupation says the film's genre: neither the mean of a user nor that
    of an item knows anything of it.
    """
    source = shutil.copytree(stack.source, tmp_path_factory.mktemp("leaked") / "source")
    users, items = (
        [line.split("|") for line in (source / name).read_text(encoding="latin-1").splitlines()]
        for name in ("u.user", "u.item")
    )
    for number, user in enumerate(users):
        user[3] = ("artist", "writer")[number % 2]
    for number, item in enumerate(items):
        item[-len(GENRES) :] = [str(int(name == ("Action", "Comedy")[number % 2])) for name in GENRES]
    likes = {user[0]: user[3] == "artist" for user in users}, {item[0]: item[-len(GENRES) + 1] == "1" for item in items}
    rated = [line.split("\t") for line in (source / "u.data").read_text().splitlines()]
    for row in rated:
        row[2] = "5" if likes[0][row[0]] == likes[1][row[1]] else "2"
    for name, separator, rows in (("u.user", "|", users), ("u.item", "|", items), ("u.data", "\t", rated)):
        (source / name).write_text("".join(separator.join(row) + "\n" for row in rows), encoding="latin-1")
    cutoff = stack.plane("ingest", "--source", str(source))["cutoff"]
    for job in ("features", "embeddings", "channels"):
        stack.plane(job, "--cutoff", cutoff)
    stack.plane("registry")
    conf = {"namespace": LEAKED, "cutoff": cutoff[:10], "specs": ["deepfm", "lr"]}
    run, _, _ = stack.ended("model_training", conf, within_s=1800)
    assert run.state == "success"
    return stack.xcom(run, "gate")


def wait_until(condition: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)
