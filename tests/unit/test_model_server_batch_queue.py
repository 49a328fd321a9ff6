"""Which requests share a batch, what is refused, and which parameters make sense."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from grpc import StatusCode

from serving.model_server.batch_queue import BatchQueue, Task
from serving.model_server.batching_parameters import BatchingParameters
from serving.model_server.errors import ServerStartError, ServingError

if TYPE_CHECKING:
    from pathlib import Path


def task(rows: int) -> Task:
    return Task([np.arange(rows)], rows)


def queue(**parameters: int | bool) -> BatchQueue:
    return BatchQueue(BatchingParameters(num_batch_threads=1, **parameters), lambda _: None)


def test_tasks_share_a_batch_until_the_next_does_not_fit() -> None:
    waiting = queue(max_batch_size=4, max_execution_batch_size=4)
    for rows in (1, 2, 2):
        waiting.add(task(rows))
    assert [[one.rows for one in waiting.take()] for _ in range(2)] == [[1, 2], [2]]
    assert waiting.due() is None


def test_a_batch_waits_for_its_timeout_unless_it_is_full() -> None:
    waiting = queue(max_batch_size=2, max_execution_batch_size=2, batch_timeout_micros=3_000_000)
    first = task(1)
    waiting.add(first)
    assert waiting.due() == first.enqueued + 3
    waiting.add(task(1))
    assert waiting.due() == 0.0


def test_what_is_too_large_or_comes_to_a_full_queue_is_refused_in_the_real_servers_words() -> None:
    waiting = queue(max_batch_size=2, max_execution_batch_size=2, max_enqueued_batches=1)
    with pytest.raises(ServingError, match="Task size 3 is larger than maximum input batch size 2") as caught:
        waiting.add(task(3))
    assert caught.value.code is StatusCode.INVALID_ARGUMENT
    waiting.add(task(2))
    with pytest.raises(ServingError) as caught:
        waiting.add(task(1))
    assert caught.value.code is StatusCode.UNAVAILABLE
    assert caught.value.message == (
        "The batch scheduling queue to which this task was submitted is full; currently 1 batches enqueued and "
        "max_enqueued_batches is 1"
    )


def test_a_large_task_is_split_to_fill_the_open_batch_first() -> None:
    waiting = queue(
        max_batch_size=10, max_execution_batch_size=4, max_enqueued_batches=3, enable_large_batch_splitting=True
    )
    waiting.add(task(1))
    parts = waiting.add(task(9))
    assert [part.rows for part in parts] == [3, 4, 2]
    assert np.concatenate([part.inputs[0] for part in parts]).tolist() == list(range(9))
    assert [[one.rows for one in waiting.take()] for _ in range(3)] == [[1, 3], [4], [2]]
    waiting.add(task(10))
    with pytest.raises(
        ServingError, match=r"task size is 3 but scheduling capacity is only 2 \(num_enqueued_batches=3"
    ):
        waiting.add(task(3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size { value: 0 }", "input_batch_size_limit must be positive; was 0"),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
        ("allowed_batch_sizes: 8", "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [8, 8]", "must be monotonically increasing"),
        (
            "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 1001 }",
            "must be greater than or equal to max_execution_batch_size",
        ),
    ],
)
def test_parameters_that_contradict_one_another_are_refused(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "batching.pbtxt"
    file.write_text(text)
    with pytest.raises(ServingError, match=words):
        BatchingParameters.read(file)


def test_parameters_are_read_with_the_real_defaults(tmp_path: Path) -> None:
    file = tmp_path / "batching.pbtxt"
    file.write_text("")
    read = BatchingParameters.read(file)
    assert (read.max_batch_size, read.batch_timeout_micros, read.max_enqueued_batches) == (1000, 0, 10)
    file.write_text(
        'max_batch_size { value: 8 } batch_timeout_micros { value: 5 } thread_pool_name { value: "pool" } '
        "allowed_batch_sizes: [2, 8] pad_variable_length_inputs: true"
    )
    read = BatchingParameters.read(file)
    assert (read.max_batch_size, read.max_execution_batch_size, read.batch_timeout_micros) == (8, 8, 5)
    assert (read.thread_pool_name, read.pad_variable_length_inputs) == ("pool", True)
    assert [read.padded(rows) for rows in (1, 2, 3, 8)] == [2, 2, 8, 8]
    file.write_text("max_batch_sizes { value: 8 }")
    with pytest.raises(ServerStartError, match=r"expected a BatchingParameters in text format: 1:1 .*max_batch_sizes"):
        BatchingParameters.read(file)
