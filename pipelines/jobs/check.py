"""Job: what lies in the lake against the declared checks, before anything is computed from it."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

from feature_repo.contracts.checks import Distribution, Type, checked_datasets, recent_checks, row_checks
from feature_repo.contracts.datasets import EVENTS, ITEMS, QUARANTINE, USERS
from feature_repo.contracts.intervals import check_start, format_cutoff
from feature_repo.contracts.schemas import read_schema
from feature_repo.locks import exclusive
from pipelines.checks.lake import check_lake
from pipelines.checks.missing import missing_shares
from pipelines.checks.outcomes import Outcome, Status, accepting
from pipelines.checks.recent import RecentPast, compared_figures, judge_recent
from pipelines.checks.windows import Window, Windows, windows
from pipelines.errors import ChecksFailedError, JobError
from pipelines.io.duck import duckdb_session
from pipelines.io.lake import partition_day, stored_dataset
from pipelines.reports.checks_page import Comparison, Evidence, publish_page
from pipelines.statistics.tables import update_statistics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import duckdb

    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema
    from pipelines.io.lake import Snapshot
    from pipelines.settings import Settings

_MEMORY = "1GB"
_SENTENCES = 3
_ROWS_ARE_WRONG = "the rows themselves are wrong"
_log = logging.getLogger(__name__)


def run(settings: Settings, place: Namespace, cutoff: datetime, start: datetime | None) -> Mapping[str, object]:
    """Judge the lake's rows, and the interval from `start` to `cutoff` beside the recent past; write a report.

    The daily statistics are brought up to date on the way, unless the rows themselves are wrong.

    Raises:
        ChecksFailedError: a check failed whose severity is an error; its result names the report.
        JobError: nothing was ingested, nothing lies before the cutoff, or the settings accept a check that is none.
        TransientError: another job is writing the lake or the statistics.
    """
    interval = Window(start or cutoff - timedelta(days=settings.check_interval_days), cutoff)
    try:
        check_start(interval.start, cutoff)
    except ValueError as error:
        raise JobError(str(error)) from error
    schema = read_schema(place)
    _refuse_unknown(settings.accepted_checks, schema)
    with ExitStack() as stack:
        stack.enter_context(exclusive(place.locks / "check.lock", f"checks of namespace {place.name}"))
        lake = {
            dataset.name: stack.enter_context(stored_dataset(place, dataset).reading())
            for dataset in checked_datasets(schema)
        }
        quarantine = stack.enter_context(stored_dataset(place, QUARANTINE).reading())
        everything = lake[EVENTS.name]
        events = everything.within(None, cutoff)
        if not events.rows:
            end = format_cutoff(cutoff)
            msg = f"namespace {place.name}: expected events before {end}, the lake has none; ingest them"
            raise JobError(msg)
        database = stack.enter_context(duckdb_session(_MEMORY))
        outcomes = accepting(check_lake(database, row_checks(schema), lake), settings.accepted_checks)
        cut = windows(partition_day(min(events.partitions)), interval.start, cutoff, settings.check_recent_windows)
        comparison, changed = None, 0
        if any(outcome.stops for outcome in outcomes):
            later = [Outcome(check, Status.NOT_JUDGED, _ROWS_ARE_WRONG) for check in recent_checks(schema)]
        else:
            changed = update_statistics(place, schema, everything, lake[ITEMS], lake[USERS]).changed_partitions
            comparison, later = _compare(database, schema, events, cut)
        outcomes += accepting(later, settings.accepted_checks)
        report = publish_page(Evidence(place, cut, outcomes, {**lake, EVENTS.name: events}, quarantine), comparison)
    return _result(outcomes, report, changed)


def _compare(
    database: duckdb.DuckDBPyConnection, schema: Schema, events: Snapshot, cut: Windows
) -> tuple[Comparison, list[Outcome]]:
    """Look at the interval and the recent past, and judge the one by the other."""
    per_day = {partition_day(name): part.rows for name, part in events.partitions.items()}
    past = RecentPast(database, events, cut)
    checks = recent_checks(schema)
    wanted = {check.column for check in checks if isinstance(check, Distribution)}
    compared = {figure.name: past.compare(figure) for figure in compared_figures(schema) if figure.name in wanted}
    comparison = Comparison(past, compared, missing_shares(database, schema))
    return comparison, list(judge_recent(checks, past, compared, per_day))


def _result(outcomes: Sequence[Outcome], report: str, changed_partitions: int) -> Mapping[str, object]:
    """Return the job's result; ChecksFailedError, which carries it, where something failed that stops the run."""
    stopping = [outcome for outcome in outcomes if outcome.stops]
    warnings = [outcome for outcome in outcomes if outcome.warns]
    for outcome in warnings:
        _log.warning("%s", outcome.sentence)
    result = {
        "report": report,
        "checks": len(outcomes),
        "errors": len(stopping),
        "warnings": len(warnings),
        "not_judged": sum(outcome.status is Status.NOT_JUDGED for outcome in outcomes),
        "changed_partitions": changed_partitions,
    }
    if stopping:
        raise ChecksFailedError(_message(stopping), result)
    return result


def _message(stopping: Sequence[Outcome]) -> str:
    shown = "; ".join(outcome.sentence for outcome in stopping[:_SENTENCES])
    more = f"; and {len(stopping) - _SENTENCES} more" if len(stopping) > _SENTENCES else ""
    return (
        f"{len(stopping)} checks failed: {shown}{more}. Mend the source and ingest it again; if the data is right, "
        "name the checks in KESTREL_CHECK_ACCEPTED"
    )


def _refuse_unknown(accepted: frozenset[str], schema: Schema) -> None:
    checks = (*row_checks(schema), *recent_checks(schema))
    known = {check.name for check in checks if not isinstance(check, Type)}
    if unknown := sorted(accepted - known):
        names = ", ".join(sorted(known))
        msg = f"KESTREL_CHECK_ACCEPTED: expected checks other than of types, received {unknown}; there are {names}"
        raise JobError(msg)
