"""Requests as files: PredictionLogs of PredictRequests, the form in which a model server takes its warm-up, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from feature_repo.contracts import served_models
from serving.protocol.errors import RecordFileError
from serving.protocol.messages import PredictionLog
from serving.protocol.record_files import read_records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WARMUP_FILE = served_models.WARMUP_FILE
MAX_WARMUP_RECORDS = 1000
"""A version with more does not load."""


def log_of(request: Any) -> bytes:  # noqa: ANN401 - a message class made at run time
    """Return a PredictRequest as a serialized PredictionLog."""
    log = PredictionLog()
    log.predict_log.request.CopyFrom(request)
    return bytes(log.SerializeToString(deterministic=True))


def read_requests(path: Path) -> Iterator[Any]:
    """Yield the PredictRequests of a file; logs of other kinds are left out.

    Raises:
        RecordFileError: The file is damaged.
    """
    for place, record in enumerate(read_records(path)):
        try:
            log = PredictionLog.FromString(record)
        except DecodeError as error:
            msg = f"{path}: record {place}: expected a PredictionLog: {error}; remove the file"
            raise RecordFileError(msg) from error
        if log.WhichOneof("log_type") == "predict_log":
            yield log.predict_log.request
