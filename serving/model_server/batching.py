"""Merges concurrent runs of one signature into one, and splits the outputs again: the real server's BatchingSession.

A failed run fails every request in it, as there. A signature whose inputs differ in their first dimension (our
`one_user`) cannot be merged and is refused: batch such a model's requests in the client, or leave it out of batching
with `--enable_per_model_batching_parameters`.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.model_server import metrics
from serving.model_server.batch_queue import BatchQueue, BatchScheduler, Task
from serving.model_server.batching_parameters import PER_MODEL_FILE, BatchingParameters
from serving.model_server.errors import ServerStartError, ServingError, failed_precondition, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Run = Callable[[tuple[str, ...], tuple[str, ...], Sequence[NDArray[Any]]], list[Any]]

_MAX_PADDED_RANK = 6


@dataclass(frozen=True, slots=True)
class Batching:
    """What the flags say about merging."""

    scheduler: BatchScheduler
    parameters: BatchingParameters
    per_model: bool = False
    """Only versions with parameters of their own are batched."""

    def session(self, path: Path, run: Run) -> BatchingSession | None:
        """Wrap the runs of the version in `path`; None if they are not to be merged.

        Raises:
            ServingError: The version's own parameters are wrong.
        """
        if not self.per_model:
            return BatchingSession(self.scheduler, self.parameters, run)
        file = path / PER_MODEL_FILE
        if not file.is_file():
            return None
        try:
            return BatchingSession(self.scheduler, BatchingParameters.read(file), run)
        except ServerStartError as error:
            raise invalid(str(error)) from error


class BatchingSession:
    """The runs of one version. A queue for each set of inputs and outputs that requests name."""

    def __init__(self, scheduler: BatchScheduler, parameters: BatchingParameters, run: Run) -> None:
        self._scheduler = scheduler
        self._parameters = parameters
        self._run = run
        self._queues: dict[tuple[tuple[str, ...], tuple[str, ...]], BatchQueue] = {}
        self._lock = threading.Lock()

    def run(self, feeds: tuple[str, ...], fetches: tuple[str, ...], values: Sequence[NDArray[Any]]) -> list[Any]:
        """Compute `fetches` from `values` together with whoever else asks for them just now.

        Raises:
            ServingError: The inputs cannot be merged, the queue is full, or the run failed.
        """
        rows = _batch_size(values)
        parts = self._scheduler.schedule(self._queue(feeds, fetches), Task(values, rows))
        for part in parts:
            part.done.wait()
        for part in parts:
            if part.error is not None:
                raise part.error
        outputs = [part.outputs for part in parts if part.outputs is not None]
        return outputs[0] if len(outputs) == 1 else [np.concatenate(pieces) for pieces in zip(*outputs, strict=True)]

    def close(self) -> None:
        """Forget the queues; no request is in them."""
        for queue in self._queues.values():
            self._scheduler.forget(queue)
        self._queues.clear()

    def _queue(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> BatchQueue:
        queue = self._queues.get((feeds, fetches))
        if queue is not None:
            return queue
        with self._lock:
            queue = self._queues.get((feeds, fetches))
            if queue is None:
                queue = BatchQueue(self._parameters, lambda tasks: self._process(feeds, fetches, tasks))
                self._scheduler.open(queue)
                self._queues[feeds, fetches] = queue
        return queue

    def _process(self, feeds: tuple[str, ...], fetches: tuple[str, ...], tasks: list[Task]) -> None:
        """Run one batch; whatever happens, every task in it is done."""
        now = time.perf_counter()
        for task in tasks:
            metrics.QUEUING_LATENCY.add((now - task.enqueued) * 1e6, ("",))
        try:
            outputs = self._run_merged(feeds, fetches, tasks)
        except Exception as error:  # noqa: BLE001 - handed to the requests that wait for it
            for task in tasks:
                task.error = _own(error)
        else:
            start = 0
            for task in tasks:
                task.outputs = [array[start : start + task.rows] for array in outputs]
                start += task.rows
        for task in tasks:
            task.done.set()

    def _run_merged(self, feeds: tuple[str, ...], fetches: tuple[str, ...], tasks: list[Task]) -> list[Any]:
        rows = sum(task.rows for task in tasks)
        size = self._parameters.padded(rows)
        metrics.PADDING_SIZE.add(size - rows, (str(size),))
        metrics.PROCESSED_BATCH_SIZE.add(size)
        merged = [
            self._merged(name, [task.inputs[place] for task in tasks], size - rows) for place, name in enumerate(feeds)
        ]
        metrics.WRAPPED_RUN_COUNT.add()
        outputs = self._run(feeds, fetches, merged)
        for array in outputs:
            if not array.ndim:
                msg = "Batched output tensor has 0 dimensions"
                raise failed_precondition(msg)
            if len(array) != size:
                msg = (
                    "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                    "input tensors"
                )
                raise failed_precondition(msg)
        return outputs

    def _merged(self, name: str, arrays: Sequence[NDArray[Any]], filling: int) -> NDArray[Any]:
        shapes = {array.shape[1:] for array in arrays}
        if len(shapes) > 1:
            if not self._parameters.pad_variable_length_inputs or len(set(map(len, shapes))) > 1:
                msg = (
                    f"Tensors with name '{name}' from different tasks have different shapes and padding is turned off. "
                    "Set pad_variable_length_inputs to true, or ensure that all tensors with the same name have equal "
                    "dimensions starting with the first dim."
                )
                raise failed_precondition(msg)
            arrays = _padded(arrays)
        if not filling and len(arrays) == 1:
            return arrays[0]
        return np.concatenate([*arrays, *[arrays[-1][:1]] * filling])


def _batch_size(values: Sequence[NDArray[Any]]) -> int:
    if not values:
        msg = "Batching Run() must have at least one input tensor"
        raise invalid(msg)
    for array in values:
        if not array.ndim:
            msg = "Batching Run() input tensors must have at least one dimension"
            raise invalid(msg)
        if len(array) != len(values[0]):
            msg = "Batching Run() input tensors must have equal 0th-dimension size"
            raise invalid(msg)
    for array in values:
        metrics.INPUT_BATCH_SIZE.add(len(array))
    return len(values[0])


def _padded(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    sizes = np.max([array.shape for array in arrays], axis=0)
    if len(sizes) > _MAX_PADDED_RANK:
        msg = f"Only tensors with rank from 1 to {_MAX_PADDED_RANK} can be padded."
        raise invalid(msg)
    return [_fitted(array, (len(array), *sizes[1:].tolist())) for array in arrays]


def _fitted(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if array.shape == shape:
        return array
    if not array.size:
        msg = "Got empty tensor in batch of non-empty tensors."
        raise invalid(msg)
    fitted = np.full(shape, array.flat[0], dtype=array.dtype)
    fitted[tuple(map(slice, array.shape))] = array
    return fitted


def _own(error: Exception) -> Exception:
    """Return an error for one request: raising the same object in several threads would mix their tracebacks."""
    return ServingError(error.code, error.message) if isinstance(error, ServingError) else error
