"""The warm-up file of a version: requests that the model server answers to itself before it answers anybody else."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from serving.protocol.record_files import write_records
from serving.protocol.recorded import WARMUP_FILE, log_of
from serving.rollout.errors import UnknownVersionError
from serving.rollout.recorded_requests import recorded_requests
from serving.rollout.saved_models import read_signatures

if TYPE_CHECKING:
    from pathlib import Path

    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)


def add_warmup(model: ServingModel, registered: RegisteredVersion, saved_model: Path) -> None:
    """Write the warm-up file into a SavedModel that is about to be published, unless it brought one.

    Only requests that fit the SavedModel's signatures: a version whose warm-up fails does not load.
    """
    path = saved_model / WARMUP_FILE
    if path.exists() or not model.settings.rollout_warmup_requests:
        return
    limit = model.settings.rollout_warmup_requests
    try:
        recorded = recorded_requests(model, registered, read_signatures(saved_model), limit)
    except UnknownVersionError as error:
        log.warning("%s version %d: no warm-up: %s", model.name, registered.version, error)
        return
    path.parent.mkdir(exist_ok=True)
    write_records(path, map(log_of, recorded.requests))
    log.info(
        "%s version %d: %d warm-up requests (%s)",
        *(model.name, registered.version, len(recorded.requests), recorded.source),
    )
