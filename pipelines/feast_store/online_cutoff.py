"""How far the online side has got, so that a backfill never takes it back.

Two records: `online/materialized.json`, what Redis was filled from, and `online/current.json`, the snapshot in force.
Between the two Redis is already ahead, so both count. A cutoff that lies after the clock does not count: one that was
published before jobs refused such a thing gives way to the next refresh (decision 0101).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from feature_repo.contracts.intervals import check_found_cutoff, format_cutoff, parse_cutoff
from feature_repo.contracts.manifests import OnlineSnapshot
from feature_repo.contracts.publishing import CorruptRecordError, read_json, write_json
from feature_repo.locks import exclusive
from pipelines.errors import SupersededError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from feature_repo.contracts.places import Namespace

_LOG = logging.getLogger(__name__)
_REMEDY = "remove it, and run 'python -m pipelines materialize'"


@dataclass(frozen=True, slots=True)
class Materialized:
    """What Redis was last filled from, whole."""

    cutoff: datetime
    checksums: Mapping[str, str]
    """Feature view → checksum of the table it was filled from."""
    rows: Mapping[str, int]
    """Feature view → entities written."""


def materialized_path(place: Namespace) -> Path:
    """Return where the record of the last materialisation lies."""
    return place.online / "materialized.json"


def write_materialized(place: Namespace, done: Materialized) -> None:
    """Record a materialisation that is complete."""
    record = {"cutoff": format_cutoff(done.cutoff), "checksums": dict(done.checksums), "rows": dict(done.rows)}
    write_json(materialized_path(place), record)


def read_materialized(place: Namespace) -> Materialized | None:
    """Return the last complete materialisation, None if there was none; CorruptRecordError names a broken record."""
    path = materialized_path(place)
    try:
        record = cast("dict[str, Any]", read_json(path, _REMEDY))
        return Materialized(parse_cutoff(record["cutoff"]), record["checksums"], record["rows"])
    except FileNotFoundError:
        return None
    except CorruptRecordError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{path}: not a record of a materialisation ({error}); {_REMEDY}"
        raise CorruptRecordError(msg) from error


def online_cutoff(place: Namespace, clock: datetime | None = None) -> datetime | None:
    """Return the latest cutoff that is online and does not lie after the clock (wall time), None if there is none."""
    done = read_materialized(place)
    cutoffs = [] if done is None else [done.cutoff]
    if place.online_current.exists():
        cutoffs.append(parse_cutoff(OnlineSnapshot.read(place.online_current).cutoff))
    now = clock or datetime.now(UTC)
    return max((cutoff for cutoff in cutoffs if _counts(place, cutoff, now)), default=None)


def _counts(place: Namespace, cutoff: datetime, clock: datetime) -> bool:
    try:
        check_found_cutoff(cutoff, clock)
    except ValueError as error:
        _LOG.warning("namespace %s: what is online gives way to the next refresh: %s", place.name, error)
        return False
    return True


def refuse_superseded(place: Namespace, cutoff: datetime) -> None:
    """SupersededError if a later cutoff is online: this interval has nothing to publish."""
    online = online_cutoff(place)
    if online is not None and cutoff < online:
        msg = (
            f"namespace {place.name}: cutoff {format_cutoff(cutoff)} lies before {format_cutoff(online)}, which is "
            f"online; Redis and snapshot stay as they are. To go back on purpose, remove "
            f"{materialized_path(place)} and {place.online_current}"
        )
        raise SupersededError(msg)


def online_lock(place: Namespace) -> AbstractContextManager[None]:
    """Let one job at a time write the online side of a namespace; LockedError to any other."""
    return exclusive(place.locks / "online.lock", f"online side of namespace {place.name}")
