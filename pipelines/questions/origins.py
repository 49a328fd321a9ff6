"""Where in a log lists are learned, chosen and judged: midnights whose following days hold the answers.

                     ├─ answers ─┤
                 ├─ answers ─┤
             ├─ answers ─┤       ├ answers of validation ┤├ answers of test ┤
    ├ known ─▼───▼───▼───────────▼───────────────────────▼──────────────────┤
    first    train               validation              test               end of the log
    event                        first midnight from     first midnight from
                                 train_end               valid_end

The rows that a model is fitted on end at `train_end`, those that it is chosen on at `valid_end`. Where no training set
is named, origins are spaced evenly, or somebody chose the test origin.

The answers of every origin end at or before the next origin of another role: what is learned, and what is chosen, has
seen nothing of what it is chosen or judged by. Origins to train on may share answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.questions import Role
from pipelines.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Sequence

_DAY = timedelta(days=1)
_VALIDATION_SHARE = 0.4
"""Of the origins: two of five."""
_CHOOSING = 2
"""Origins that a fit chooses its variant on, if the log is long enough."""
_TRAINED_IN_A_SPAN = 3
"""Origins to train on within the answers of one."""
_LEAST_TO_TRAIN = 2
"""Days between the first midnight and validation: one is known before an origin, and one holds its answers."""


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


def spaced_origins(first_event: datetime, end: datetime, days: int, count: int, training: int) -> list[Origin]:
    """Return up to `count` origins, `days` apart, the last of them `days` before the log's end; the earlier validate.

    Each has at least as long a log before it as its answers are. A log too short for that twice over has one origin
    for each role, whose answers share what lies after the log's first half. Up to `training` origins lie before them.
    """
    return _with_training(_spaced(first_event, end, days, count), first_event, days, training)


def validation_origins(first_event: datetime, last_event: datetime, cutoff: datetime, days: int) -> list[Origin]:
    """Return up to two origins to choose on, the answers of each ending at or before a cutoff: none of a short log."""
    end = min(cutoff, midnight_after(last_event))
    return [replace(each, role=Role.VALIDATION) for each in _spaced(first_event, end, days, _CHOOSING)]


def choosing_end(origin: Origin, origins: Sequence[Origin]) -> datetime:
    """Return where the answers end by which the variants of an origin's fits are chosen: at it or before.

    Moments of overlapping origins are rounded down to ones that a whole span parts: variants are judged there alone.
    """
    if origin.role is not Role.TRAIN:
        return origin.moment
    last = max(each.end for each in origins if each.role is Role.TRAIN)
    span = origin.end - origin.moment
    return last + span * ((origin.moment - last) // span)


def vectors_moment(origin: Origin, origins: Sequence[Origin]) -> datetime:
    """Return as of when an origin's item vectors are fitted: at it, and of origins to train on at the first of them.

    A fit of vectors takes longer than all else that an origin asks for, and lists are not judged at these.
    """
    if origin.role is not Role.TRAIN:
        return origin.moment
    return min(each.moment for each in origins if each.role is Role.TRAIN)


def _spaced(first_event: datetime, end: datetime, days: int, count: int) -> list[Origin]:
    """Return the origins of `spaced_origins` that validate and test."""
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


def origins_after(  # noqa: PLR0917 - what a model knows, the log, and how it is divided
    train_end: datetime, valid_end: datetime, first_event: datetime, end: datetime, days: int, training: int
) -> list[Origin]:
    """Return the test origin of a model, the one to choose it on, and up to `training` before that.

    No validation origin where no midnight lies between the ends, and so none to train on. No origin at all where no
    day is left for the test's answers.

    Args:
        train_end: The end of the rows that the model is fitted on.
        valid_end: The end of the rows that it is chosen on: it knows nothing from then on.
        first_event: When the log begins.
        end: When it ends (exclusive).
        days: How many hold an origin's answers at most.
        training: How many origins to train on at most.
    """
    tests = _tested(midnight_from(valid_end), end, days)
    validations = _validated(midnight_from(train_end), tests, first_event, days)
    return _with_training([*validations, *tests], first_event, days, training)


def given_origin(moment: datetime, first_event: datetime, end: datetime, days: int, training: int) -> list[Origin]:
    """Return one test origin that somebody chose, the validation origin before it, and up to `training` before that.

    The validation origin lies `days` before, or half-way into a log that is too short for that.

    Raises:
        JobError: It does not lie inside the log.
    """
    if not first_event < moment < end:
        msg = (
            f"origin {format_cutoff(moment)}: expected a midnight after the first event, {format_cutoff(first_event)}, "
            f"and before the end of the log, {format_cutoff(end)}; choose another origin, or ingest later events"
        )
        raise JobError(msg)
    first = midnight_from(first_event)
    validation = max(moment - timedelta(days=days), first + _DAY * ((moment - first) // _DAY // 2))
    tests = _tested(moment, end, days)
    return _with_training([*_validated(validation, tests, first, days), *tests], first_event, days, training)


def _tested(moment: datetime, end: datetime, days: int) -> list[Origin]:
    """Return a test origin, unless no day is left for answers."""
    return [Origin(moment, min(moment + timedelta(days=days), end), Role.TEST)] if moment < end else []


def _validated(moment: datetime, tests: list[Origin], first: datetime, days: int) -> list[Origin]:
    """Return a validation origin, unless it does not lie after `first`, or no day is left before the test origin."""
    if not tests or not first < moment < tests[0].moment:
        return []
    return [Origin(moment, min(moment + timedelta(days=days), tests[0].moment), Role.VALIDATION)]


def _with_training(origins: list[Origin], first_event: datetime, days: int, count: int) -> list[Origin]:
    """Return origins with up to `count` to train on before the first validation origin; none where there is no such.

    They lie a third of their answers' span apart: users who come back are asked again with a longer history, so that
    overlapping spans hold more of what can be learned than adjoining ones. Answers are `days` long, or a third of what
    lies before validation if that is less, and as long a time is known before the first origin.
    """
    validation = next((each.moment for each in origins if each.role is Role.VALIDATION), None)
    if validation is None:
        return origins
    whole = (validation - midnight_after(first_event)) // _DAY
    if whole < _LEAST_TO_TRAIN:
        return origins
    span = max(1, min(days, whole // 3))
    step = max(1, span // _TRAINED_IN_A_SPAN)
    count = min(count, (whole - 2 * span) // step + 1)
    moments = [validation - _DAY * (span + place * step) for place in reversed(range(count))]
    return [*(Origin(moment, moment + _DAY * span, Role.TRAIN) for moment in moments), *origins]
