"""`make demo`: the data, the stack, one refresh through Airflow and what follows from it, and what came of it."""

from __future__ import annotations

import fcntl
import math
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from feature_repo.contracts.intervals import check_cutoff, check_namespace, format_cutoff, parse_cutoff
from feature_repo.contracts.places import Namespace, Serving
from feature_repo.contracts.planes import run_plane
from infra.local.airflow_api import Airflow, DagRun
from infra.local.errors import LocalError, SettingsError
from infra.local.places import Places
from infra.local.processes import memory_of
from infra.local.settings import PREFIX, ensure_settings_file, set_setting
from infra.local.stack import Stack, command_environment, describe_stack, stack_memory, start_stack
from infra.local.watching import CHAIN, Chain, resume_command, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.console import Console

DEFAULT_SOURCE = "ml-100k"
_DAGS_S = 90.0
_SAMPLE_EVERY_S = 2.0
_OTHER_SECONDS = 270
_SECONDS_PER_MILLION_ROWS = 300
"""The stack's start, Airflow's own time, gates and rollout, and per row to train on; on two cores."""
_OTHER_BYTES = 300_000_000
"""Models, experiments and logs of a few runs."""
_MEMORY, _MEMORY_PER_ROW = 4_500_000_000, 1200
"""Of the stack and its jobs, and per row to train on: two models are trained side by side, each with all rows."""


@dataclass(slots=True)
class MemoryMeter:
    """The largest memory of everything that was seen: the stack, its jobs, and this process, in bytes."""

    state: Path
    peak: int = 0
    _last: float = 0.0

    def sample(self) -> None:
        """Look, unless the last look was a moment ago."""
        now = time.monotonic()
        if now - self._last >= _SAMPLE_EVERY_S:
            self.peak = max(self.peak, stack_memory(self.state) + memory_of(psutil.Process()))
            self._last = time.monotonic()


def bring_source(data: str, places: Places, environment: Mapping[str, str], say: Callable[[str], None]) -> Path:
    """Return what to ingest: the user's folder, zip or file, else MovieLens 100K, fetched unless it is there."""
    if data:
        source = Path(data).expanduser().resolve()
        if not source.exists():
            msg = f"DATA={data}: expected a folder, zip or file, there is nothing at {source}"
            raise SettingsError(msg)
        return source
    source = places.sources / DEFAULT_SOURCE
    say("Fetching MovieLens 100K (checked against a pinned checksum; GroupLens's terms are in the README) ...")
    run_plane(["pipelines", "fetch", "--out", str(source)], environment)
    return source


def choose_mapping(given: str, data: str) -> str:
    """Return the mapping as jobs take it: a file's whole path, or the name of one that comes with the project."""
    if not given:
        return ""
    if not data:
        msg = (
            f"SOURCE={given}: expected DATA=<folder, zip or file> beside it, received none; name the data that it maps"
        )
        raise SettingsError(msg)
    path = Path(given).expanduser().resolve()
    return str(path) if path.is_file() else given


def choose_namespace(given: str, described: Mapping[str, Any]) -> str:
    """Return the namespace that was asked for, else the one the data set suggests."""
    try:
        return check_namespace(given or str(described["namespace"]))
    except ValueError as error:
        msg = f"NAMESPACE: {error}"
        raise SettingsError(msg) from error


def choose_cutoff(given: str, clock: datetime | None = None) -> str | None:
    """Return the cutoff that was asked for, as the DAG takes it (a date), or None; `clock` is now, by default."""
    if not given:
        return None
    try:
        return format_cutoff(check_cutoff(parse_cutoff(given), clock or datetime.now(UTC)))[:10]
    except ValueError as error:
        msg = f"CUTOFF: {error}"
        raise SettingsError(msg) from error


def announce(source: Path, namespace: str, described: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Say what is coming, before it comes: the data plane's estimate, and the rest of the loop's."""
    events, rows = int(described["events"]), int(described["training_rows"])
    seconds = int(described["seconds"]) + _OTHER_SECONDS + _SECONDS_PER_MILLION_ROWS * rows / 1e6
    size, memory = int(described["disk_bytes"]) + _OTHER_BYTES, _MEMORY + _MEMORY_PER_ROW * rows
    say(f"Data: {source} ({described['layout']}): {events:,} events, namespace {namespace}")
    minutes, disk, most = max(1, round(seconds / 60)), size / 1024**3, memory / 1024**3
    parts = f"{math.ceil(most)} GB of memory, and {disk:.1f} GB of disk in the state folder"
    say(f"This will take about {minutes} minutes, {parts}")


@contextmanager
def only_demo(state: Path) -> Iterator[None]:
    """Let one demo run at a time, as each sets the namespace that is served; the kernel frees a killed one's lock."""
    places = Places(state)
    places.run.mkdir(parents=True, exist_ok=True)
    with places.demo_lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"another make demo runs on {state}: wait until it has ended, or end it with Ctrl-C"
            raise LocalError(msg) from error
        yield


def demo(
    *,
    state: Path,
    data: str,
    mapping: str,
    namespace: str,
    cutoff: str,
    console: Console,
    say: Callable[[str], None],
) -> int:
    """Run the whole loop on one data set and report; return the exit code."""
    began = time.monotonic()
    interval, mapping = choose_cutoff(cutoff), choose_mapping(mapping, data)
    if namespace:
        choose_namespace(namespace, {})
    ensure_settings_file(state)
    places = Places(state)
    environment = command_environment(state, os.environ, toolchain_only=False)
    source = bring_source(data, places, environment, say)
    mapped = ["--mapping", mapping] if mapping else []
    described = run_plane(["pipelines", "describe", "--source", str(source), *mapped], environment)
    namespace = choose_namespace(namespace, described)
    announce(source, namespace, described, say)
    meter = MemoryMeter(state)
    stack = start_stack(state, os.environ, say=say)
    if (served := stack.settings.namespace) != namespace:
        say(f"The recommender answers for {served} until the data of {namespace} has passed and a model of it serves")
    airflow = Airflow(stack.settings)
    try:
        airflow.wait_for_dags(CHAIN, _DAGS_S)
        conf = {"namespace": namespace, "source": str(source), "source_mapping": mapping or None, "cutoff": interval}
        first = airflow.trigger("feature_refresh", conf)
        say(
            f"Triggered feature_refresh ({first.run_id}): {stack.settings.airflow_uri.rstrip('/')}/dags/feature_refresh"
        )
        return _watch_and_report(airflow, stack, first, meter=meter, began=began, console=console, say=say)
    finally:
        airflow.close()


def watch_again(*, state: Path, run_id: str, resume: bool, console: Console, say: Callable[[str], None]) -> int:
    """Follow the chain of an earlier refresh to its end and report; `resume` lets its failed tasks go on first."""
    began = time.monotonic()
    places = Places(state)
    if not places.run.exists():
        msg = f"there is no stack in {state}: expected one that runs; make demo starts it"
        raise LocalError(msg)
    stack = describe_stack(state, os.environ)
    airflow = Airflow(stack.settings)
    try:
        first = airflow.run(CHAIN[0], run_id)
        stack = start_stack(state, os.environ, say=say)
        if resume:
            _resume(airflow, first, say)
            first = airflow.run(CHAIN[0], run_id)
        return _watch_and_report(airflow, stack, first, meter=MemoryMeter(state), began=began, console=console, say=say)
    finally:
        airflow.close()


def _resume(airflow: Airflow, first: DagRun, say: Callable[[str], None]) -> None:
    run: DagRun | None = first
    for position, dag in enumerate(CHAIN):
        if position:
            run = airflow.run_caused_by(dag, run) if run else None
        if run is not None and run.state == "failed":
            say(f"Clearing the failed tasks of {dag} ({run.run_id})")
            airflow.clear_failed(run)
            return
    say("No run of this chain has failed: watching it")


def may_take_over(state: Path, namespace: str, served: str) -> bool:
    """Tell whether the recommender may answer for `namespace` rather than for `served`, as it does now.

    The data has to be online. Nobody's ranked lists give way to those of a data set without a model in force.
    """

    def has_model(name: str) -> bool:
        return Serving(state).current_release(name).exists()

    return Namespace(state, namespace).online_current.exists() and (has_model(namespace) or not has_model(served))


def _serve(stack: Stack, namespace: str, say: Callable[[str], None]) -> Stack | None:
    """Have the recommender answer for a namespace whose runs have ended well; None if it has to stay as it is."""
    state, served = stack.places.state, stack.settings.namespace
    if not may_take_over(state, namespace, served):
        say(f"The recommender goes on answering for {served}: no model of {namespace} was promoted")
        return None
    name = f"{PREFIX}NAMESPACE"
    set_setting(state, name, namespace)
    return start_stack(state, {**os.environ, name: namespace}, say=say)


def _watch_and_report(
    airflow: Airflow,
    stack: Stack,
    first: DagRun,
    *,
    meter: MemoryMeter,
    began: float,
    console: Console,
    say: Callable[[str], None],
) -> int:
    from infra.local.report import print_report  # noqa: PLC0415 - only when there is something to report

    namespace = str(first.conf["namespace"])
    try:
        chain: Chain = watch(airflow, first, console, sample=meter.sample)
    except KeyboardInterrupt:
        command = resume_command(first).removesuffix(" --resume")
        waits = (
            "" if namespace == stack.settings.namespace else f"; at their end the recommender goes over to {namespace}"
        )
        say(f"\nThe stack and its runs go on. Watch again{waits}: {command}\nStop everything: make down")
        raise
    serving = _serve(stack, namespace, say)
    print_report(
        airflow,
        serving or stack,
        chain,
        console,
        namespace=namespace,
        is_served=serving is not None,
        meter=meter,
        began=began,
    )
    return 0
