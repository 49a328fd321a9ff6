"""Where in a log lists are judged: midnights whose following days hold the answers.

    ├─────────── known ───────────┤ answers of validation │ answers of test │
    first event                   origin                  origin            end of the log

Validation origins come first: their answers end before the first test origin, so that nothing that is chosen on them
has seen what it is judged by.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta

from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.questions import Role
from pipelines.errors import JobError

_DAY = timedelta(days=1)
_VALIDATION_SHARE = 0.4
"""Of the origins: two of five."""
_CHOOSING = 2
"""Origins that a fit chooses its variant on, if the log is long enough."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A midnight, what the days after it are for, and where they end (exclusive)."""

    moment: datetime
    end: datetime
    role: Role


def midnight_from(moment: datetime) -> datetime:
    """Return the first midnight in UTC at or after a moment."""
    midnight = datetime.combine(moment.astimezone(UTC).date(), time(), UTC)
    return midnight if midnight == moment else midnight + _DAY


def midnight_after(moment: datetime) -> datetime:
    """Return the first midnight in UTC after a moment: the exclusive end of a log with its last event then."""
    return midnight_from(moment + timedelta(microseconds=1))


def spaced_origins(first_event: datetime, end: datetime, days: int, count: int) -> list[Origin]:
    """Return up to `count` origins, `days` apart, the last of them `days` before the log's end; the earlier validate.

    Each has at least as long a log before it as its answers are. A log too short for that twice over has one origin
    for each role, whose answers share what lies after the log's first half.
    """
    horizon = timedelta(days=days)
    moments: list[datetime] = []
    while len(moments) < count and end - (len(moments) + 2) * horizon >= first_event:
        moments.insert(0, end - (len(moments) + 1) * horizon)
    if len(moments) < min(count, 2):
        return _halved(midnight_after(first_event), end, count)
    validating = max(1, round(_VALIDATION_SHARE * len(moments))) if len(moments) > 1 else 0
    return [
        Origin(moment, moment + horizon, Role.VALIDATION if place < validating else Role.TEST)
        for place, moment in enumerate(moments)
    ]


def validation_origins(first_event: datetime, last_event: datetime, cutoff: datetime, days: int) -> list[Origin]:
    """Return up to two origins to choose on, the answers of each ending at or before a cutoff: none of a short log."""
    end = min(cutoff, midnight_after(last_event))
    return [replace(each, role=Role.VALIDATION) for each in spaced_origins(first_event, end, days, _CHOOSING)]


def _halved(first: datetime, end: datetime, count: int) -> list[Origin]:
    """Return origins of a short log whose first midnight after an event is `first`."""
    whole = (end - first) // _DAY
    if whole < 1:
        return []
    if count == 1 or whole == 1:
        return [Origin(first + _DAY * (whole // 2), end, Role.TEST)]
    later = max(1, 3 * whole // 4)
    middle, last = first + _DAY * min(whole // 2, later - 1), first + _DAY * later
    return [Origin(middle, last, Role.VALIDATION), Origin(last, end, Role.TEST)]


def origins_after(known_until: datetime, first_event: datetime, end: datetime, days: int) -> list[Origin]:
    """Return the test origin of a model that has learned from what lies before `known_until`, and one to choose on.

    The test origin is the first midnight from then on; the validation origin lies `days` before it, or half-way into a
    log that is too short for that. No origin where no day is left for answers.
    """
    horizon, test = timedelta(days=days), midnight_from(known_until)
    if test >= end:
        return []
    found = [Origin(test, min(test + horizon, end), Role.TEST)]
    first = midnight_from(first_event)
    halfway = first + _DAY * ((test - first) // _DAY // 2)
    validation = max(test - horizon, halfway)
    if first < validation < test:
        found.insert(0, Origin(validation, test, Role.VALIDATION))
    return found


def given_origin(moment: datetime, first_event: datetime, end: datetime, days: int) -> list[Origin]:
    """Return one test origin that somebody chose, and the validation origin before it.

    Raises:
        JobError: It does not lie inside the log.
    """
    if not first_event < moment < end:
        msg = (
            f"origin {format_cutoff(moment)}: expected a midnight after the first event, {format_cutoff(first_event)}, "
            f"and before the end of the log, {format_cutoff(end)}; choose another origin, or ingest later events"
        )
        raise JobError(msg)
    return origins_after(moment, first_event, end, days)
