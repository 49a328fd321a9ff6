"""How requests are merged: the BatchingParameters of the real server, with its defaults and its checks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

from serving.model_server.errors import invalid
from serving.model_server.text_protos import BatchingParameters as Message
from serving.model_server.text_protos import read_text_proto

if TYPE_CHECKING:
    from pathlib import Path

POOL_NAME = "model_server_batch_threads"
PER_MODEL_FILE = "batching_params.pbtxt"
"""In a version's folder; read with `--enable_per_model_batching_parameters`."""


@dataclass(frozen=True, slots=True)
class BatchingParameters:
    """The sizes are rows: lengths of the first dimension."""

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    """How long a request waits for others while a thread is free."""
    max_enqueued_batches: int = 10
    """Batches that may wait for a thread; what comes then is refused."""
    num_batch_threads: int = len(os.sched_getaffinity(0))
    thread_pool_name: str = POOL_NAME
    allowed_batch_sizes: tuple[int, ...] = ()
    """A merged run is filled up to the next of these."""
    pad_variable_length_inputs: bool = False
    """Fill up dimensions other than the first, with the tensor's first value."""
    enable_large_batch_splitting: bool = False
    """Let a request spread over several runs."""
    max_execution_batch_size: int = 1000
    """With splitting: the most rows of a run. Otherwise it is `max_batch_size`."""

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a file in protobuf text format.

        Raises:
            ServerStartError: It is no BatchingParameters.
            ServingError: The parameters contradict one another.
        """
        return cls.of(read_text_proto(path, Message))

    @classmethod
    def of(cls, message: Any) -> Self:  # noqa: ANN401 - a message class made at run time
        """Check a message and fill in the defaults.

        Raises:
            ServingError: INVALID_ARGUMENT; the parameters contradict one another.
        """
        values: dict[str, Any] = {
            one.name: getattr(message, one.name).value
            for one in message.DESCRIPTOR.fields
            if one.message_type is not None and message.HasField(one.name)
        }
        values["allowed_batch_sizes"] = tuple(message.allowed_batch_sizes)
        values["pad_variable_length_inputs"] = message.pad_variable_length_inputs
        largest = values.get("max_batch_size", cls.__dataclass_fields__["max_batch_size"].default)
        if not values.get("enable_large_batch_splitting"):
            values["max_execution_batch_size"] = largest
        else:
            values.setdefault("max_execution_batch_size", largest)
        parameters = cls(**values)
        parameters.check()
        return parameters

    def check(self) -> None:
        """Raise ServingError, in the real server's words, unless the parameters make sense."""
        positive = {
            "num_batch_threads": self.num_batch_threads,
            "input_batch_size_limit": self.max_batch_size,
            "max_enqueued_batches": self.max_enqueued_batches,
            "max_execution_batch_size": self.max_execution_batch_size,
        }
        for name, value in positive.items():
            if value < 1:
                msg = f"{name} must be positive; was {value}"
                raise invalid(msg)
        if self.batch_timeout_micros < 0:
            msg = f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}"
            raise invalid(msg)
        if self.max_execution_batch_size > self.max_batch_size:
            msg = (
                "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to "
                f"max_execution_batch_size; were {self.max_batch_size} and {self.max_execution_batch_size}"
            )
            raise invalid(msg)
        if not self.allowed_batch_sizes:
            return
        if any(later <= earlier for earlier, later in pairwise(self.allowed_batch_sizes)):
            msg = "allowed_batch_sizes entries must be monotonically increasing"
            raise invalid(msg)
        if self.allowed_batch_sizes[-1] != self.max_execution_batch_size:
            limit = "max_execution_batch_size" if self.enable_large_batch_splitting else "max_batch_size"
            msg = (
                f"Last entry in allowed_batch_sizes must match {limit}; last entry was "
                f"{self.allowed_batch_sizes[-1]}; expected {self.max_execution_batch_size}"
            )
            raise invalid(msg)

    def padded(self, rows: int) -> int:
        """Return the size that a run of `rows` is filled up to."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)
