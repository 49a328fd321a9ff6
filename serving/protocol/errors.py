"""What can go wrong between a client and a model server.

JobError
├── ProtocolMissingError        the message classes were not generated
├── CallError                   the server, or the way to it, refused a call (terminal)
│   └── TransientCallError      and the same call may succeed in a minute; a TransientError, too
│       └── BusyServerError     and did not reach any model: the server had no thread for it
├── PrivateServerError          a model server of one's own does not come up
├── TensorError                 a value that no tensor can carry
└── RecordFileError             a file of recorded requests is damaged
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.jobs import JobError, TransientError

if TYPE_CHECKING:
    import grpc


class ProtocolMissingError(JobError):
    """The descriptors were not collected yet, and the wheels that carry them are not installed."""


class PrivateServerError(JobError):
    """A model server that was started for one SavedModel does not come up with it."""


class TensorError(JobError):
    """A value does not fit a tensor, or a tensor's bytes do not fit its shape."""


class RecordFileError(JobError):
    """A file of records is cut short, or is none."""


class CallError(JobError):
    """A call ended with a status other than OK.

    Attributes:
        code: The gRPC status code.
        details: The server's own words.
        transient: Whether the same call may succeed in a minute.
    """

    transient = False

    def __init__(self, message: str, code: grpc.StatusCode, details: str) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class TransientCallError(CallError, TransientError):
    """The server is not there, too slow or overloaded."""

    exit_code = TransientError.exit_code
    transient = True


class BusyServerError(TransientCallError):
    """The server had no thread for the call, which says nothing of the model that was asked for."""
