"""Namespaces and cutoffs, and the partition key that carries both from one DAG to the next.

A namespace holds everything of one data set: lake, features, Feast project, experiment, registered model, served model.
A cutoff is the exclusive end of an interval: a midnight in UTC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time

_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
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


def parse_cutoff(text: str) -> datetime:
    """Read `1998-04-23` or `1998-04-23T00:00:00Z`; ValueError for anything that is not a midnight in UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        msg = f"cutoff {text!r}: expected a date such as 1998-04-23 or 1998-04-23T00:00:00Z"
        raise ValueError(msg) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if moment.time() != time():
        msg = f"cutoff {text!r}: expected midnight UTC, the end of a whole day, received {moment:%H:%M:%S} UTC"
        raise ValueError(msg)
    return moment


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
