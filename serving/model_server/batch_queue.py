"""Queues of requests that wait to be merged, and the threads that take batches from them. No TensorFlow.

Requests of one signature join the queue's open batch until it is full. A thread takes a batch when it is full or its
first request has waited long enough; the queues take turns. The rules are those of TensorFlow's SharedBatchScheduler.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grpc import StatusCode

from serving.model_server.errors import ServingError, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from serving.model_server.batching_parameters import BatchingParameters

    Arrays = Sequence[NDArray]  # type: ignore[type-arg] # of any dtype


@dataclass(slots=True)
class Task:
    """A request, or a part of one: rows of every input. `done` is set when `outputs` or `error` is there."""

    inputs: Arrays
    rows: int
    enqueued: float = field(default_factory=time.perf_counter)
    outputs: list[NDArray] | None = None  # type: ignore[type-arg] # of any dtype
    error: Exception | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def split(self, sizes: Sequence[int]) -> list[Task]:
        """Return parts of these sizes; the inputs are views."""
        parts, start = [], 0
        for size in sizes:
            parts.append(Task([array[start : start + size] for array in self.inputs], size, self.enqueued))
            start += size
        return parts


@dataclass(slots=True)
class _Batch:
    tasks: list[Task] = field(default_factory=list)
    rows: int = 0


class BatchQueue:
    """The requests of one signature. Every method but `__init__` is called with the scheduler's lock held."""

    def __init__(self, parameters: BatchingParameters, process: Callable[[list[Task]], None]) -> None:
        self.process = process
        self._parameters = parameters
        self._batches: deque[_Batch] = deque([_Batch()])

    def add(self, task: Task) -> list[Task]:
        """Put a task into the queue and return the parts to wait for: itself, or what it was split into.

        Raises:
            ServingError: It is larger than a batch may be, or the queue is full.
        """
        limit = self._parameters.max_batch_size
        if task.rows > limit:
            msg = f"Task size {task.rows} is larger than maximum input batch size {limit}"
            raise invalid(msg)
        if self._parameters.enable_large_batch_splitting:
            parts = self._parts(task)
        else:
            parts = [task]
            if self._open.rows + task.rows > limit and len(self._batches) >= self._parameters.max_enqueued_batches:
                detail = (
                    f"currently {len(self._batches)} batches enqueued and max_enqueued_batches is "
                    f"{self._parameters.max_enqueued_batches}"
                )
                raise _full(detail)
        for part in parts:
            if self._open.rows + part.rows > self._parameters.max_execution_batch_size:
                self._batches.append(_Batch())
            self._open.tasks.append(part)
            self._open.rows += part.rows
        return parts

    @property
    def _open(self) -> _Batch:
        return self._batches[-1]

    def _parts(self, task: Task) -> list[Task]:
        size = self._parameters.max_execution_batch_size
        waiting, left = len(self._batches), size - self._open.rows
        capacity = (self._parameters.max_enqueued_batches - waiting) * size + left
        if task.rows > capacity:
            detail = (
                f"task size is {task.rows} but scheduling capacity is only {capacity} (num_enqueued_batches={waiting}, "
                f"max_enqueued_batches={self._parameters.max_enqueued_batches}, open_batch_size={self._open.rows}, "
                f"max_execution_batch_size={size})"
            )
            raise _full(detail)
        if task.rows <= left:
            return [task]
        first = [left] if left else []
        full, rest = divmod(task.rows - left, size)
        return task.split([*first, *[size] * full, *([rest] if rest else [])])

    def due(self) -> float | None:
        """Return when the first batch may be taken, as `time.perf_counter()` counts; None if there is none."""
        first = self._batches[0]
        if not first.tasks:
            return None
        if len(self._batches) > 1 or first.rows >= self._parameters.max_execution_batch_size:
            return 0.0
        return first.tasks[0].enqueued + self._parameters.batch_timeout_micros / 1e6

    def take(self) -> list[Task]:
        """Take the first batch out of the queue."""
        batch = self._batches.popleft()
        if not self._batches:
            self._batches.append(_Batch())
        return batch.tasks


def _full(detail: str) -> ServingError:
    msg = f"The batch scheduling queue to which this task was submitted is full; {detail}"
    return ServingError(StatusCode.UNAVAILABLE, msg)


class BatchScheduler:
    """The threads, shared by the queues of all models."""

    def __init__(self, threads: int, name: str) -> None:
        self._changed = threading.Condition()
        self._queues: deque[BatchQueue] = deque()
        self._closed = False
        for number in range(threads):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    def open(self, queue: BatchQueue) -> None:
        """Take batches from `queue`, too."""
        with self._changed:
            self._queues.append(queue)

    def forget(self, queue: BatchQueue) -> None:
        """Take no more batches from `queue`; it is empty."""
        with self._changed:
            self._queues.remove(queue)

    def close(self) -> None:
        """End the threads when they have done what they are at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def schedule(self, queue: BatchQueue, task: Task) -> list[Task]:
        """Put a task into a queue; see `BatchQueue.add`."""
        with self._changed:
            parts = queue.add(task)
            self._changed.notify(len(parts))
        return parts

    def _work(self) -> None:
        while True:
            with self._changed:
                queue = self._next()
                while queue is None:
                    if self._closed:
                        return
                    self._changed.wait(self._pause())
                    queue = self._next()
                tasks = queue.take()
            queue.process(tasks)

    def _next(self) -> BatchQueue | None:
        now = time.perf_counter()
        for place, queue in enumerate(self._queues):
            due = queue.due()
            if due is not None and due <= now:
                self._queues.rotate(-place - 1)
                return queue
        return None

    def _pause(self) -> float | None:
        dues = [due for queue in self._queues if (due := queue.due()) is not None]
        return max(0.0, min(dues) - time.perf_counter()) if dues else None
