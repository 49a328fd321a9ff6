"""Say what a source is and what it will cost, before anything is done with it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from feature_repo.contracts.intervals import end_of_day, format_cutoff
from pipelines.checks.events import scan_events
from pipelines.errors import SourceError
from pipelines.sources.detection import namespace_of, open_source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipelines.settings import Settings

_SECONDS_AT_LEAST = 60
_SECONDS_PER_MILLION = 400
_BYTES_AT_LEAST = 5_000_000
_BYTES_PER_EVENT = 600
"""Measured on 2 cores: docs/decisions/0012-estimates.md."""


def run(settings: Settings, path: Path, mapping: Path | None = None) -> Mapping[str, object]:
    """Read the times of all events once (32 million take about half a minute) and estimate the rest from their number.

    `training_rows` are at most so many: for implicit feedback each event may bring as many others as are drawn for it.

    Raises:
        SourceError: no layout fits, or the source as a whole cannot be read.
    """
    source = open_source(path, mapping)
    source.check()
    events, last = scan_events(source, datetime.now(UTC))
    if last is None:
        msg = f"source {path}: expected at least one event with a time in the past, received none"
        raise SourceError(msg)
    cutoff = end_of_day(last)
    return {
        "namespace": namespace_of(path),
        "layout": source.name,
        "source": str(path.absolute()),
        "events": events,
        "training_rows": events * (1 + settings.negatives) if source.schema.is_implicit else events,
        "cutoff": format_cutoff(cutoff),
        "seconds": _SECONDS_AT_LEAST + _SECONDS_PER_MILLION * events // 1_000_000,
        "disk_bytes": _BYTES_AT_LEAST + _BYTES_PER_EVENT * events,
    }
