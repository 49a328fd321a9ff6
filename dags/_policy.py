"""What all DAGs share: the assets between them, retries, and how a template finds its namespace and cutoff."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, CronDataIntervalTimetable, Param, PartitionedAtRuntime

from feature_repo.contracts.intervals import (
    NAMESPACE_SCHEMA,
    PartitionKey,
    check_clock,
    check_found_cutoff,
    check_namespace,
    check_start,
    format_cutoff,
    parse_clock,
    parse_cutoff,
)
from feature_repo.contracts.orchestration import POOL, POOL_SLOTS, TASK_TIMEOUT_HOURS, TASK_TIMEOUT_HOURS_MAX
from feature_repo.contracts.places import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

FEATURES = Asset(name="features", uri="kestrel://features")
"""A refresh of the online features; the partition key says of which namespace, up to which cutoff."""
VERDICT = Asset(name="verdict", uri="kestrel://verdict")
"""What the gates decided of a candidate; `extra` names the registered version."""

HEAVY: dict[str, Any] = {"pool": POOL}
"""Of a task that keeps the machine busy."""
TRAINING: dict[str, Any] = {"pool": POOL, "pool_slots": POOL_SLOTS - 1}
"""Of a training: one at a time, however many a run has, for each holds its rows in memory."""
ALONE: dict[str, Any] = {"pool": POOL, "pool_slots": POOL_SLOTS, "priority_weight": 100}
"""Of a task that measures latency: no heavy one runs beside it, so that a busy machine rejects no good model.

It comes first when all slots are free for a moment; heavy tasks that follow one another would keep it waiting.
"""


def task_timeout() -> timedelta:
    """Return how long a task may take, by KESTREL_TASK_TIMEOUT_HOURS: a job that hangs stops every later run.

    Raises:
        ValueError: It is no number of hours, or one out of range.
    """
    text = os.environ.get("KESTREL_TASK_TIMEOUT_HOURS", "").strip() or str(TASK_TIMEOUT_HOURS)
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= TASK_TIMEOUT_HOURS_MAX:
        msg = (
            f"KESTREL_TASK_TIMEOUT_HOURS={text!r}: expected hours above 0 and up to {TASK_TIMEOUT_HOURS_MAX:g}, such "
            f"as {TASK_TIMEOUT_HOURS:g}; correct it where Airflow gets its environment, or leave it out"
        )
        raise ValueError(msg)
    return timedelta(hours=hours)


DEFAULT_ARGS: dict[str, Any] = {
    "owner": "kestrel",
    # Only what may pass by itself is tried again: JobOperator fails at once for everything else, templates included.
    "retries": 3,
    "retry_delay": timedelta(seconds=15),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": task_timeout(),
}

NAMESPACE_PARAM = Param(
    "ml-100k",
    type="string",
    pattern=NAMESPACE_SCHEMA,
    title="Namespace",
    description="The data set's own space: lake, features, experiment and models. Lower case letters, digits, hyphens.",
)


def refresh_schedule() -> CronDataIntervalTimetable | PartitionedAtRuntime:
    """Return when `feature_refresh` runs by itself: by KESTREL_REFRESH_CRON (UTC), or only when it is triggered."""
    cron = os.environ.get("KESTREL_REFRESH_CRON", "").strip()
    return CronDataIntervalTimetable(cron, timezone="UTC") if cron else PartitionedAtRuntime()


def shared(doc: str | None) -> dict[str, Any]:
    """Return what every DAG has alike: one run at a time, retries, templates, and its module's text as its page.

    The list of DAGs shows the first sentence.
    """
    return {
        "catchup": False,
        "max_active_runs": 1,
        "default_args": DEFAULT_ARGS,
        "description": (doc or "").partition("\n")[0],
        "doc_md": doc,
        "user_defined_macros": MACROS,
    }


def check_conf(conf: Mapping[str, Any], params: Collection[str]) -> None:
    """Refuse what a run was triggered with, or return: the form's schemas see one value each, and no clock.

    Args:
        conf: What the form, the REST API or the command line gave the run.
        params: The names that its DAG declares.

    Raises:
        ValueError: A key that the DAG does not know, or a value that the jobs' command lines would refuse.
    """
    for name in conf:
        if name not in params:
            nearest = get_close_matches(name, sorted(params), n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            msg = f"conf of this run: expected keys among {', '.join(sorted(params))}, received {name!r}{hint}"
            raise ValueError(msg)
    now = datetime.now(UTC)
    clock = check_clock(parse_clock(conf["clock"]), now) if conf.get("clock") else now
    checks: dict[str, Callable[[str], object]] = {
        "namespace": check_namespace,
        "cutoff": lambda text: check_found_cutoff(parse_cutoff(text), clock),
        "start": parse_cutoff,
    }
    for name, check in checks.items():
        if conf.get(name):
            check(conf[name])
    if conf.get("start") and conf.get("cutoff"):
        check_start(parse_cutoff(conf["start"]), parse_cutoff(conf["cutoff"]))


def cutoff_or_nothing(cutoff: str | None, run_type: str, data_interval_end: Any = None) -> str:  # noqa: ANN401 - Airflow's own DateTime
    """Return the cutoff asked for, else the last midnight of a scheduled interval, else nothing.

    A run by hand has an interval, too, if it was given a logical date, which the trigger form fills in with the
    present moment; nobody meant that.
    """
    if cutoff:
        return format_cutoff(parse_cutoff(cutoff))
    is_scheduled = run_type in {"scheduled", "backfill"} and data_interval_end
    return data_interval_end.strftime("%Y-%m-%d") if is_scheduled else ""


def source_path(source: str) -> str:
    """Return where a source lies; a relative path starts at the state folder."""
    return str(Path(os.environ["KESTREL_STATE"]) / source)


def mapping_path(mapping: str | None) -> str:
    """Return where a mapping lies, as a source does; a name without an ending is one that comes with Kestrel."""
    return source_path(mapping) if mapping and Path(mapping).suffix else mapping or ""


def partition(partition_key: str | None, params: Mapping[str, Any]) -> PartitionKey:
    """Return the interval of a run: the key that the asset brought, or the form's namespace and cutoff."""
    if partition_key:
        return PartitionKey.parse(partition_key)
    if not params.get("cutoff"):
        msg = (
            "this run was triggered by hand without a cutoff: expected the end of the interval to train on, such as "
            "1998-04-23; fill in 'Cutoff' in the trigger form, or let feature_refresh trigger the run"
        )
        raise ValueError(msg)
    return PartitionKey(check_namespace(params["namespace"]), parse_cutoff(params["cutoff"]))


def namespace_of(partition_key: str | None, params: Mapping[str, Any]) -> str:
    """Return the namespace of a run that needs no cutoff: the partition's, or the form's."""
    return PartitionKey.parse(partition_key).namespace if partition_key else check_namespace(params["namespace"])


def run_key(run_id: str) -> str:
    """Return the run's id as a folder name: the same for every retry of every task of the run."""
    return re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")


def candidate_folder(namespace: str, run_id: str) -> str:
    """Return the working folder of a training run."""
    return str(Namespace(Path(os.environ["KESTREL_STATE"]), namespace).candidates / run_key(run_id))


def verdict_version(triggering_asset_events: Mapping[Asset, Any], params: Mapping[str, Any]) -> str:
    """Return the registered version to roll out: the form's, or that of the verdict that triggered the run."""
    if params.get("version"):
        return str(int(params["version"]))  # to a JSON schema, 3.0 is an integer
    events = triggering_asset_events[VERDICT] if triggering_asset_events else []
    if not events:
        msg = (
            "this run was triggered by hand without a version: expected a version number of the registered model; "
            "fill in 'Version' in the trigger form, or let model_training trigger the run"
        )
        raise ValueError(msg)
    extra = events[-1].extra
    if not extra.get("version"):
        msg = (
            f"asset event of {VERDICT.name}: expected the registered version in its extra, such as "
            f'{{"version": "3"}}, received {extra!r}; let model_training send it, or fill in \'Version\' in the form'
        )
        raise ValueError(msg)
    return str(extra["version"])


MACROS = {
    "cutoff_or_nothing": cutoff_or_nothing,
    "source_path": source_path,
    "mapping_path": mapping_path,
    "partition": partition,
    "namespace_of": namespace_of,
    "format_cutoff": format_cutoff,
    "run_key": run_key,
    "candidate_folder": candidate_folder,
    "verdict_version": verdict_version,
}
