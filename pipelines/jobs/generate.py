"""Make up an event log of any size: for benchmarks, load tests and trying things out."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from feature_repo.contracts.publishing import publishing_directory, read_json, write_json
from pipelines.errors import JobError
from pipelines.synthetic.events import make_log
from pipelines.synthetic.files import write_log

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipelines.settings import Settings
    from pipelines.synthetic.scale import LogLayout, LogScale

SCALE_FILE = "generated.json"
"""Beside the log: what it was made to."""
_LOG = logging.getLogger(__name__)


def run(settings: Settings, out: Path, scale: LogScale, layout: LogLayout) -> Mapping[str, object]:  # noqa: ARG001 - every job takes the settings
    """Write a log to the folder `out`, whole or not at all. If it is there already, nothing is done.

    Raises:
        JobError: `out` is something else.
    """
    out = out.absolute()
    wanted = {**scale.model_dump(mode="json"), "layout": layout.value}
    if out.exists():
        _check_same(out, wanted)
        return {"source": str(out), "events": scale.events, "generated": False}
    began = time.monotonic()
    with publishing_directory(out) as part:
        write_log(make_log(scale), part, layout)
        write_json(part / SCALE_FILE, wanted)
    _LOG.info("%s: %d events in %.1f s", out, scale.events, time.monotonic() - began)
    return {"source": str(out), "events": scale.events, "generated": True}


def _check_same(out: Path, wanted: Mapping[str, object]) -> None:
    record = out / SCALE_FILE
    received = read_json(record) if record.is_file() else None
    if received == wanted:
        return
    what = f"no {SCALE_FILE}" if received is None else f"one of {received}"
    msg = f"{out}: expected no such folder, or a generated log of {wanted}, received {what}; remove it or name another"
    raise JobError(msg)
