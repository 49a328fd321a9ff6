"""The report of a run's checks: verdict, plots, refused rows, daily statistics, every check."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from feature_repo.contracts.checks import EVENTS_PER_ITEM, EVENTS_PER_USER, Severity
from feature_repo.contracts.datasets import EVENTS, ITEM_ID, ITEMS, USER_ID, USERS
from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.statistics import DAILY_ACTIVITY, DAILY_TOP_ITEMS
from pipelines.checks.outcomes import Outcome, Status
from pipelines.io.lake import partition_day
from pipelines.reports import figures
from pipelines.reports.page import publish, render
from pipelines.reports.refusals_page import first_of_each_reason
from pipelines.statistics.tables import statistics_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa

    from feature_repo.contracts.places import Namespace
    from pipelines.checks.recent import Compared, RecentPast
    from pipelines.checks.windows import Windows
    from pipelines.io.lake import Snapshot

KIND = "checks"
_TEMPLATE = "checks.html.jinja"
_DAYS_SHOWN = 14
_ITEMS_SHOWN = 3
_TERMS_SHOWN = 12
_ORDER = {"error": 0, "warning": 1, "accepted": 2, "not judged": 3, "passed": 4}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the report is about."""

    namespace: Namespace
    windows: Windows
    outcomes: Sequence[Outcome]
    tables: Mapping[str, Snapshot]
    """Events before the cutoff, items, users."""
    quarantine: Snapshot


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was seen of the interval and the recent past; there is none while the rows themselves are wrong."""

    past: RecentPast
    compared: Mapping[str, Compared]
    missing: Mapping[str, float]
    """Attribute → share of the items, or users, that have none."""


def publish_page(evidence: Evidence, comparison: Comparison | None) -> str:
    """Write the report; return its path below the namespace's reports. The same content is the same report."""
    report = _report(evidence, comparison)
    html = render(_TEMPLATE, report, _plots(evidence, comparison))
    return publish(evidence.namespace, KIND, evidence.windows.interval.end, html, report)


def _report(evidence: Evidence, comparison: Comparison | None) -> dict[str, Any]:
    refused = evidence.quarantine.read()
    interval, past = evidence.windows.interval, evidence.windows.past
    return {
        "namespace": evidence.namespace.name,
        "cutoff": format_cutoff(interval.end),
        "interval": {"start": format_cutoff(interval.start), "end": format_cutoff(interval.end)},
        "past": {"start": format_cutoff(past.start), "end": format_cutoff(past.end)} if past else None,
        "verdict": _verdict(evidence.outcomes),
        "totals": {
            "events": evidence.tables[EVENTS.name].rows,
            "items": evidence.tables[ITEMS].rows,
            "users": evidence.tables[USERS].rows,
            "days with events": len(evidence.tables[EVENTS.name].partitions),
            "refused rows": refused.num_rows,
        },
        "refused": list(first_of_each_reason(refused)),
        "days": _days(evidence) if comparison else [],
        "checks": sorted(map(_check, evidence.outcomes), key=lambda check: _ORDER[check["outcome"]]),
        "sources": {f"{name}, SHA-256": snapshot.checksum for name, snapshot in evidence.tables.items()},
    }


def _verdict(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    stopping = [outcome for outcome in outcomes if outcome.stops]
    warning = [outcome for outcome in outcomes if outcome.warns]
    if stopping:
        code, title = "failed", "Failed"
        text = "Nothing is computed from this data. What was published before stays as it is."
    elif warning:
        code, title = "warnings", "Passed, with warnings"
        text = "Features are computed. A person should look at what is unusual."
    else:
        code, title, text = "passed", "Passed", "Everything that is declared holds."
    return {
        "code": code,
        "title": title,
        "text": f"{text} {_count(outcomes)}",
        "sentences": [outcome.sentence for outcome in (*stopping, *warning)],
    }


def _count(outcomes: Sequence[Outcome]) -> str:
    quiet = sum(outcome.status is Status.NOT_JUDGED for outcome in outcomes)
    failed = sum(outcome.status is Status.FAILED for outcome in outcomes)
    return f"{len(outcomes)} checks: {len(outcomes) - failed - quiet} passed, {failed} failed, {quiet} not judged."


def _check(outcome: Outcome) -> dict[str, Any]:
    shown = outcome.status.value
    if outcome.status is Status.FAILED:
        severity = outcome.check.severity
        shown = "accepted" if outcome.is_accepted and severity is Severity.ERROR else severity.value
    return {
        "name": outcome.check.name,
        "outcome": shown,
        "expected": outcome.check.expected,
        "received": outcome.received,
        "examples": list(outcome.examples),
    }


def _days(evidence: Evidence) -> list[dict[str, Any]]:
    """Return the last days of the statistics, the latest first, each with the items that had most events."""
    end = evidence.windows.interval.end
    first = end - timedelta(days=_DAYS_SHOWN)
    activity, top = (
        statistics_table(evidence.namespace, dataset).snapshot().within(first, end).read().to_pylist()
        for dataset in (DAILY_ACTIVITY, DAILY_TOP_ITEMS)
    )
    titles = _titles(evidence.tables[ITEMS].read(), {row[ITEM_ID.name] for row in top})
    best: dict[datetime, list[str]] = {}
    for row in top:
        if row["place"] <= _ITEMS_SHOWN:
            best.setdefault(row["day"], []).append(f"{titles[row[ITEM_ID.name]]} ({row['events']:,})")
    return [
        {**row, "day": format_cutoff(row["day"]), "top_items": best.get(row["day"], [])} for row in reversed(activity)
    ]


def _titles(items: pa.Table, wanted: set[str]) -> dict[str, str]:
    rows = items.filter(pc.is_in(items.column(ITEM_ID.name), value_set=pc.cast(sorted(wanted), "string")))
    return {row[ITEM_ID.name]: row["title"] or row[ITEM_ID.name] for row in rows.to_pylist()}


def _plots(evidence: Evidence, comparison: Comparison | None) -> dict[str, Any]:
    """Return the plots as SVG text."""
    refused = evidence.quarantine.read()
    reasons = pc.value_counts(refused.column("reason")).to_pylist()
    reasons.sort(key=lambda reason: (-reason["counts"], reason["values"]))
    by_reason = {reason["values"]: float(reason["counts"]) for reason in reasons}
    per_day = {partition_day(name): part.rows for name, part in evidence.tables[EVENTS.name].partitions.items()}
    return {
        "whole": figures.events_per_day(per_day, evidence.windows.interval, evidence.windows.past),
        "grid": list(_grid(comparison)) if comparison else [],
        "refused": figures.bars("Refused rows by reason", "rows", by_reason, width=figures.WHOLE_WIDTH)
        if by_reason
        else "",
    }


def _grid(comparison: Comparison) -> Iterator[str]:
    past = comparison.past
    ranked = {EVENTS_PER_USER: ("User activity", "users by rank", USER_ID.name)}
    ranked[EVENTS_PER_ITEM] = ("Item popularity", "items by rank", ITEM_ID.name)
    for name, compared in comparison.compared.items():
        if name in ranked:
            title, label, column = ranked[name]
            yield figures.rank_frequency(title, label, past.ranked(column, 0), past.ranked(column, 1))
        elif compared.now.total:
            yield figures.shares(f"Events by {name}", _shares(compared))
    if any(comparison.missing.values()):
        yield figures.bars("Missing attributes", "share of all items or users", comparison.missing, percent=True)


def _shares(compared: Compared) -> figures.Shares:
    """Return the shares of the bins as they are, without smoothing; of terms those of the most frequent."""
    bins = compared.bins if compared.is_ordered else compared.bins[:_TERMS_SHOWN]
    now, past = compared.now, compared.past
    return figures.Shares(
        bins,
        [now.counts.get(name, 0) / now.total for name in bins],
        [past.counts.get(name, 0) / past.total for name in bins] if past.total else [],
    )
