"""What can go wrong in the data plane, and whether another try may help.

JobError                        terminal
├── SourceError                 a source file or folder is not what its layout says
│   └── QuarantineLimitError    too many of its rows were refused
├── TooFewLikesError            nothing to fit an embedding on
├── ChecksFailedError           what lies in the lake breaks a rule that nothing may be computed without
├── CorruptDatasetError         files of a stored table do not match its manifest
├── RejectedError               a gate said no
├── SupersededError             the interval lies before the one that is online
└── TransientError              worth another try
    ├── LockedError             another job is writing the table
    └── DatasetChangedError     another job rewrote the table while it was read
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.jobs import JobError, RejectedError, SupersededError, TransientError
from feature_repo.locks import LockedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

__all__ = [
    "ChecksFailedError",
    "CorruptDatasetError",
    "DatasetChangedError",
    "JobError",
    "LockedError",
    "QuarantineLimitError",
    "RejectedError",
    "SourceError",
    "SupersededError",
    "TooFewLikesError",
    "TransientError",
]


class SourceError(JobError):
    """A source cannot be read as a whole. The message names file, line, column, expected and received."""


class QuarantineLimitError(SourceError):
    """More rows of a source file were refused than the settings allow."""

    def __init__(self, message: str, rows: Mapping[str, int], refused: pa.Table, limit: float) -> None:
        super().__init__(message)
        self.rows = rows
        """Of each file that was read, how many it has."""
        self.refused = refused
        """Rows of the quarantine dataset."""
        self.limit = limit


class TooFewLikesError(JobError):
    """Too little was liked to fit a kind of embedding on."""


class ChecksFailedError(JobError):
    """Checks with the severity of an error failed. The message names them, the result has the report."""

    def __init__(self, message: str, result: Mapping[str, object]) -> None:
        super().__init__(message)
        self.result = result


class CorruptDatasetError(JobError):
    """The files of a stored table do not match its manifest, and nobody is writing it: its job has to run again."""


class DatasetChangedError(TransientError):
    """A stored table changed while it was being read."""
