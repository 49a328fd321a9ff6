"""What the server refuses, in the protocol's words.

    JobError
    ├── ServerStartError        the command line or the first configuration is wrong, or a port is taken
    └── GoldenMismatchError     golden requests and SavedModel do not belong together

    ServingError                a request or a version failed: a gRPC status code and a message

A ServingError becomes a gRPC status, an HTTP status with {"error": ...}, or a version's status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from grpc import StatusCode

from feature_repo.contracts.jobs import JobError

if TYPE_CHECKING:
    import tensorflow as tf

_BY_NUMBER = {code.value[0]: code for code in StatusCode}
_HTTP_STATUS = {
    StatusCode.OK: 200,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.ABORTED: 409,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}


class ServerStartError(JobError):
    """The server cannot start."""


class GoldenMismatchError(JobError):
    """A SavedModel cannot answer the golden requests."""


class ServingError(Exception):
    """A request or a version failed.

    Attributes:
        code: The gRPC status code.
        message: The text for the client.
    """

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def number(self) -> int:
        """The status code as `tensorflow.error.Code` counts."""
        return int(self.code.value[0])

    @property
    def http_status(self) -> int:
        """The HTTP status that the real server answers with."""
        return _HTTP_STATUS.get(self.code, 500)

    @classmethod
    def from_tensorflow(cls, error: tf.errors.OpError) -> Self:
        """Carry over what TensorFlow reports."""
        return cls(_BY_NUMBER.get(error.error_code, StatusCode.UNKNOWN), error.message)


def invalid(message: str) -> ServingError:
    """Return an INVALID_ARGUMENT."""
    return ServingError(StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """Return a NOT_FOUND."""
    return ServingError(StatusCode.NOT_FOUND, message)


def failed_precondition(message: str) -> ServingError:
    """Return a FAILED_PRECONDITION."""
    return ServingError(StatusCode.FAILED_PRECONDITION, message)
