"""The live view of a chain of DAG runs: stage, task, elapsed time; plain lines where there is no terminal."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text

from infra.local.airflow_api import ENDED, Airflow, DagRun, TaskRun
from infra.local.errors import RunFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import Console

CHAIN = ("feature_refresh", "model_training", "model_rollout")
EMITTERS = {"feature_refresh": "publish", "model_training": "gate"}
"""The task whose success sends the asset event that starts the next DAG."""
_POLL_S = 1.0
_NEXT_RUN_S = 180.0
_LOG_TAIL = 25
_COLOURS = {"success": "green", "failed": "red", "running": "cyan", "skipped": "yellow", "up_for_retry": "magenta"}
_MARKS = {"success": "✔", "failed": "✘", "running": "▶", "skipped": "◌", "up_for_retry": "↻", "upstream_failed": "✘"}


@dataclass(slots=True)
class Chain:
    """The runs that one refresh set off, and their tasks, as last seen."""

    runs: dict[str, DagRun] = field(default_factory=dict)
    tasks: dict[str, list[TaskRun]] = field(default_factory=dict)
    note: str = ""
    """Why the chain ended before its last DAG; empty if it did not."""


def elapsed(start: datetime | None, end: datetime | None, now: datetime) -> str:
    """Write a duration as minutes and seconds; nothing before the start."""
    if start is None:
        return ""
    seconds = max(0, round(((end or now) - start).total_seconds()))
    return f"{seconds // 60}:{seconds % 60:02d}"


def in_order(tasks: Sequence[TaskRun]) -> list[TaskRun]:
    """Order tasks by their start; those that have not started follow as the API lists them."""
    latest = datetime.max.replace(tzinfo=UTC)
    return sorted(tasks, key=lambda task: task.start or latest)


def changes(before: Mapping[tuple[str, int], TaskRun], after: Sequence[TaskRun], dag: str, now: datetime) -> list[str]:
    """Return one line for each task whose state or attempt has changed and is worth telling."""
    lines = []
    for task in after:
        old = before.get(task.key)
        if task.state in {"none", "scheduled", "queued"} or (
            old and (old.state, old.attempt) == (task.state, task.attempt)
        ):
            continue
        attempt = f" (attempt {task.attempt})" if task.attempt > 1 else ""
        took = "" if task.state == "running" else f"  {elapsed(task.start, task.end, now)}"
        lines.append(f"{dag:<16} {task.name:<16} {task.state}{attempt}{took}")
    return lines


def view(chain: Chain, now: datetime, began: datetime) -> Table:
    """Return the table that the live view shows."""
    table = Table(title=f"elapsed {elapsed(began, None, now)}", title_justify="left", box=None, pad_edge=False)
    table.add_column("stage", min_width=16)
    table.add_column("task", min_width=16)
    table.add_column("state", min_width=14)
    table.add_column("time", justify="right")
    for dag in CHAIN:
        run = chain.runs.get(dag)
        if run is None:
            table.add_row(Text(dag, style="dim"), "", Text("waits for its asset", style="dim"), "")
            continue
        table.add_row(
            Text(dag, style="bold"), "", Text(run.state, _COLOURS.get(run.state, "")), elapsed(run.start, run.end, now)
        )
        for task in in_order(chain.tasks.get(dag, [])):
            state = "" if task.state == "none" else task.state
            attempt = f" (attempt {task.attempt})" if task.attempt > 1 else ""
            mark = _MARKS.get(task.state, "·")
            table.add_row(
                "",
                f"{mark} {task.name}",
                Text(state + attempt, _COLOURS.get(state, "dim")),
                elapsed(task.start, task.end, now),
            )
    return table


def resume_command(first: DagRun) -> str:
    """Return the command that lets failed tasks of a chain go on and watches it again."""
    return f".venv/bin/python -m infra.local watch {shlex.quote(first.run_id)} --resume"


def failure(airflow: Airflow, run: DagRun, tasks: Sequence[TaskRun], first: DagRun) -> RunFailedError:
    """Describe a failed run: the task, the last lines of its log, and the command that resumes."""
    failed = [task for task in in_order(tasks) if task.state == "failed"]
    resume = f"When the cause is mended, go on where it stopped: {resume_command(first)}"
    if not failed:
        return RunFailedError(f"{run.dag} failed without a failed task (run {run.run_id}). {resume}")
    task = failed[0]
    lines = [line for line in airflow.log(run, task) if line.strip() and not line.startswith("::")]
    tail = "\n".join(f"  {line}" for line in lines[-_LOG_TAIL:])
    what = f"{run.dag}: task {task.name} failed at attempt {task.attempt} (run {run.run_id})"
    return RunFailedError(f"{what}. Its last lines:\n{tail}\n{resume}")


def watch(airflow: Airflow, first: DagRun, console: Console, *, sample: Callable[[], None] = lambda: None) -> Chain:
    """Follow the chain that `first` starts until its last run has ended; RunFailedError for one that failed.

    `sample` is called at every look. Nothing here drives the runs: they go on without this process.
    """
    chain = Chain()
    began = first.start or datetime.now(UTC)
    plain = not console.is_terminal
    with Live(console=console, refresh_per_second=4, transient=False, auto_refresh=not plain) as live:
        run: DagRun | None = first
        for position, dag in enumerate(CHAIN):
            if position:
                run = _next_run(airflow, dag, chain, CHAIN[position - 1])
                if run is None:
                    break
            while run is not None:
                tasks = airflow.tasks(run)
                run = airflow.run(dag, run.run_id)
                now = datetime.now(UTC)
                if plain:
                    known = {task.key: task for task in chain.tasks.get(dag, [])}
                    for line in changes(known, in_order(tasks), dag, now):
                        console.out(f"[{elapsed(began, None, now):>5}] {line}", highlight=False)
                chain.runs[dag], chain.tasks[dag] = run, tasks
                if not plain:
                    live.update(view(chain, now, began))
                sample()
                if run.state in ENDED:
                    break
                time.sleep(_POLL_S)
            if run is not None and run.state == "failed":
                raise failure(airflow, run, chain.tasks[dag], first)
    return chain


def _next_run(airflow: Airflow, dag: str, chain: Chain, before: str) -> DagRun | None:
    """Wait for the run that the asset event of the run before starts; None, with a note, if it sent none."""
    cause = chain.runs[before]
    (emitter,) = (task for task in chain.tasks[before] if task.task == EMITTERS[before])
    if emitter.state == "skipped":
        chain.note = (
            f"{before} was a backfill: a newer interval is online, so its features were computed offline only "
            f"and neither the online store nor any model was touched"
        )
        return None
    deadline = time.monotonic() + _NEXT_RUN_S
    while time.monotonic() < deadline:
        found = airflow.run_caused_by(dag, cause)
        if found is not None:
            return found
        time.sleep(_POLL_S)
    msg = (
        f"{dag} was not started within {timedelta(seconds=_NEXT_RUN_S)} of {cause.run_id}, whose task {emitter.task} "
        f"sent its asset: see the Assets page of Airflow and make logs PART=airflow-scheduler"
    )
    raise RunFailedError(msg)
