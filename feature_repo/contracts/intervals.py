"""Namespaces and cutoffs, and the partition key that carries both from one DAG to the next.

A namespace holds everything of one data set: lake, features, Feast project, experiment, registered model, served model.
A cutoff is the exclusive end of an interval: a midnight in UTC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?")
NAMESPACE_SCHEMA = rf"^{_NAMESPACE.pattern}$(?!\n)"
"""What `check_namespace` allows, as a JSON schema has it: its `$`, read by Python, also fits before a last newline."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PART = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,46}[a-z0-9])?")
_CUTOFF_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_SEPARATOR = "|"


def check_id(name: str) -> str:
    """Return the id of a training set or of questions, which names a folder, or raise ValueError; none is empty."""
    if name and not _ID.fullmatch(name):
        msg = f"id {name[:80]!r}: expected up to 64 letters, digits and . _ -, as the job that wrote it printed"
        raise ValueError(msg)
    return name


def check_namespace(namespace: str) -> str:
    """Return `namespace`, or raise ValueError with what is allowed."""
    if not _NAMESPACE.fullmatch(namespace):
        msg = f"namespace {namespace!r}: expected up to 48 lower case letters, digits, inner hyphens, such as ml-100k"
        raise ValueError(msg)
    return namespace


def check_part(name: str) -> str:
    """Return the name of a part of a release or a snapshot, or raise ValueError with what is allowed."""
    if not _PART.fullmatch(name):
        msg = f"part {name[:80]!r}: expected up to 48 lower case letters, digits, inner - and _, such as user-tower"
        raise ValueError(msg)
    return name


def parse_cutoff(text: str) -> datetime:
    """Read `1998-04-23` or `1998-04-23T00:00:00Z`; ValueError for anything that is not a midnight in UTC."""
    try:
        moment = _moment_in_utc(text)
    except ValueError:
        msg = f"cutoff {text!r}: expected a date such as 1998-04-23 or 1998-04-23T00:00:00Z"
        raise ValueError(msg) from None
    if moment.time() != time():
        msg = f"cutoff {text!r}: expected midnight UTC, the end of a whole day, received {moment:%H:%M:%S} UTC"
        raise ValueError(msg)
    return moment


def parse_clock(text: str) -> datetime:
    """Read a moment such as `2026-11-29T12:00:00Z`, in UTC where it names no zone; ValueError for anything else."""
    try:
        return _moment_in_utc(text)
    except ValueError:
        msg = f"clock {text!r}: expected a moment such as 2026-11-29T12:00:00Z"
        raise ValueError(msg) from None


def _moment_in_utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:  # the first or the last day that there is, of another zone
        raise ValueError(text) from error


def check_clock(clock: datetime, now: datetime) -> datetime:
    """Return a clock that is given to a job; ValueError if it is ahead of today.

    It is there to repeat what was done then. What is ahead of the wall would be refused by every later job.
    """
    latest = end_of_day(now)
    if clock > latest:
        msg = f"clock {clock:%Y-%m-%dT%H:%M:%SZ} lies ahead of today: expected {format_cutoff(latest)} at the latest"
        raise ValueError(msg)
    return clock


def check_start(start: datetime, cutoff: datetime) -> datetime:
    """Return the first day of an interval; ValueError if it does not lie before the interval's end."""
    if start >= cutoff:
        msg = (
            f"interval: expected a start before the cutoff, received {format_cutoff(start)} and {format_cutoff(cutoff)}"
        )
        raise ValueError(msg)
    return start


def last_midnight(moment: datetime) -> datetime:
    """Return the midnight in UTC at or before a moment."""
    return datetime.combine(moment.astimezone(UTC).date(), time(), UTC)


def end_of_day(moment: datetime) -> datetime:
    """Return the midnight in UTC after a moment: the latest cutoff that an ingestion finds by itself."""
    return last_midnight(moment) + timedelta(days=1)


def check_cutoff(cutoff: datetime, clock: datetime) -> datetime:
    """Return a cutoff that somebody asks to ingest up to; ValueError if it lies after the clock.

    Online, it would be later than every refresh until then, and each of them superseded.
    """
    return _at_latest(cutoff, last_midnight(clock), clock)


def check_found_cutoff(cutoff: datetime, clock: datetime) -> datetime:
    """Return a cutoff that an ingestion may have found, or raise ValueError.

    Where a source has events of the clock's own day, the interval ends with that day, which goes on (decision 0101).
    """
    return _at_latest(cutoff, end_of_day(clock), clock)


def _at_latest(cutoff: datetime, latest: datetime, clock: datetime) -> datetime:
    if cutoff > latest:
        msg = (
            f"cutoff {format_cutoff(cutoff)} lies after the clock, {clock.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}: "
            f"expected {latest:%Y-%m-%d} at the latest"
        )
        raise ValueError(msg)
    return cutoff


def format_cutoff(cutoff: datetime) -> str:
    """Write a cutoff as command lines and partition keys have it: `1998-04-23T00:00:00Z`."""
    return cutoff.astimezone(UTC).strftime(_CUTOFF_FORMAT)


@dataclass(frozen=True, slots=True, order=True)
class PartitionKey:
    """A namespace and a cutoff: `ml-100k|1998-04-23T00:00:00Z`."""

    namespace: str
    cutoff: datetime

    def __str__(self) -> str:
        """Write the key as Airflow carries it."""
        return f"{self.namespace}{_SEPARATOR}{format_cutoff(self.cutoff)}"

    @classmethod
    def parse(cls, text: str) -> PartitionKey:
        """Read what `str` wrote; ValueError otherwise."""
        namespace, separator, cutoff = text.partition(_SEPARATOR)
        if not separator:
            msg = f"partition key {text!r}: expected <namespace>|<cutoff>, such as 'ml-100k|1998-04-23T00:00:00Z'"
            raise ValueError(msg)
        return cls(check_namespace(namespace), parse_cutoff(cutoff))


def model_name(namespace: str, model: str) -> str:
    """Return the name of a model in the registry and on the model server: champions of two data sets never meet."""
    return f"{check_namespace(namespace)}.{model}"


def feast_project(namespace: str) -> str:
    """Return the Feast project of a namespace (Feast allows no hyphens); it is part of every key in Redis."""
    return check_namespace(namespace).replace("-", "_")
