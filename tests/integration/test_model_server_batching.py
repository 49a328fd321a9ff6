"""Concurrent requests of one signature are computed in one run; each gets its own rows, or the real server's error."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from grpc import StatusCode

from serving.model_server import metrics
from serving.model_server.batch_queue import BatchScheduler
from serving.model_server.batching_parameters import BatchingParameters
from serving.model_server.errors import ServingError
from serving.protocol.client import predict_request
from serving.protocol.record_files import write_records
from serving.protocol.recorded import WARMUP_FILE, log_of
from tests.tiny_models import export_tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from serving.model_server.servable import Servable

    Load = Callable[..., Servable]

CLIENTS = 8
PATIENT = 2_000_000
"""Micros that a request waits for others: the tests' batches are full before."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "1"
    export_tiny(folder)
    return folder


@pytest.fixture
def load(tiny: Path) -> Iterator[Load]:
    """Return a function: batching parameters → the tiny model, batched so."""
    from serving.model_server.batching import Batching
    from serving.model_server.servable import Loading, Servable, session_options

    loaded: list[tuple[Servable, BatchScheduler]] = []

    def loader(*, per_model: bool = False, path: Path = tiny, **parameters: Any) -> Servable:
        parameters.setdefault("max_execution_batch_size", parameters.get("max_batch_size", 1000))
        scheduler = BatchScheduler(2, "batch")
        batching = Batching(scheduler, BatchingParameters(**parameters), per_model=per_model)
        servable = Servable("tiny", 1, path, Loading(session_options(1, 1), batching=batching))
        loaded.append((servable, scheduler))
        return servable

    yield loader
    for servable, scheduler in loaded:
        servable.close()
        scheduler.close()


def call(servable: Servable, signature: str, *arrays: Any) -> Any:
    from serving.model_server.inference import predict

    names = ("x", "other")
    inputs = {name: np.asarray(array, dtype=np.float32) for name, array in zip(names, arrays, strict=False)}
    return predict(servable, signature, inputs)


def together(servable: Servable, signature: str, arrays: list[Any]) -> list[Any]:
    """Call with all `arrays` at the same time; return outputs and errors."""
    start = threading.Barrier(len(arrays))

    def one(array: Any) -> Any:
        start.wait()
        try:
            return call(servable, signature, array)
        except ServingError as error:
            return error

    with ThreadPoolExecutor(len(arrays)) as pool:
        return list(pool.map(one, arrays))


def runs() -> int:
    return metrics.WRAPPED_RUN_COUNT.value()


def padded_by_at_most_two() -> int:
    """Count the runs of 4 rows so far, of all tests of this process, that were padded by no more than two."""
    line = r'^:tensorflow:serving:batching_session:padding_size_bucket\{execution_batch_size="4",le="2"\} (\d+)$'
    found = re.search(line, metrics.page(), re.MULTILINE)
    return int(found[1]) if found else 0


def test_concurrent_requests_are_one_run_and_each_gets_its_own_rows(load: Load) -> None:
    servable = load(max_batch_size=CLIENTS * 3, batch_timeout_micros=PATIENT)
    before = runs()
    arrays = [np.full((3, 2), number, dtype=np.float32) for number in range(CLIENTS)]
    found = together(servable, "serving_default", arrays)
    for array, outputs in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(outputs["y"], 2 * array)
    assert runs() - before == 1
    assert any(
        line.startswith(":tensorflow:serving:batching_session:processed") for line in metrics.page().splitlines()
    )


def test_an_error_in_the_merged_run_is_everybodys_and_the_next_batch_is_fine(load: Load) -> None:
    servable = load(max_batch_size=4, batch_timeout_micros=PATIENT)
    found = together(servable, "positive", [[1.0], [-1.0], [2.0], [3.0]])
    assert {error.code for error in found} == {StatusCode.INVALID_ARGUMENT}
    assert len({id(error) for error in found}) == 4
    assert call(load(), "positive", [1.0])["y"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("signature", "arrays", "words"),
    [
        ("serving_default", [1.0], "Batching Run() input tensors must have at least one dimension"),
        ("two", [[1.0], [1.0, 2.0]], "Batching Run() input tensors must have equal 0th-dimension size"),
        ("serving_default", [[1.0] * 5], "Task size 5 is larger than maximum input batch size 4"),
        ("sum", [[1.0]], "Batched output tensor has 0 dimensions"),
        ("first", [[1.0, 2.0]], "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension"),
    ],
)
def test_what_cannot_be_merged_is_refused_in_the_real_servers_words(
    load: Load, signature: str, arrays: list[Any], words: str
) -> None:
    with pytest.raises(ServingError) as caught:
        call(load(max_batch_size=4), signature, *arrays)
    assert caught.value.message.startswith(words)


def test_a_warm_up_that_cannot_be_merged_keeps_the_version_from_loading(load: Load, tmp_path: Path) -> None:
    from serving.model_server.warmup import warm_up

    inputs = {"x": np.ones(1, np.float32), "other": np.ones(3, np.float32)}
    record = log_of(predict_request("tiny", inputs, signature_name="two"))
    (tmp_path / WARMUP_FILE).parent.mkdir()
    write_records(tmp_path / WARMUP_FILE, [record])
    with pytest.raises(ServingError, match="input tensors must have equal 0th-dimension size"):
        warm_up(load(), tmp_path)


def test_different_shapes_need_padding(load: Load) -> None:
    arrays = [np.full((1, 2), 1, dtype=np.float32), np.full((1, 3), 2, dtype=np.float32)]
    strict = load(max_batch_size=2, batch_timeout_micros=PATIENT)
    for error in together(strict, "serving_default", arrays):
        assert error.code is StatusCode.FAILED_PRECONDITION
        assert error.message.startswith("Tensors with name 'x:0' from different tasks have different shapes")
    padding = load(max_batch_size=2, batch_timeout_micros=PATIENT, pad_variable_length_inputs=True)
    found = together(padding, "serving_default", arrays)
    assert [outputs["y"].tolist() for outputs in found] == [[[2, 2, 2]], [[4, 4, 4]]]


def test_runs_are_filled_up_to_an_allowed_size_and_large_ones_split(load: Load) -> None:
    padded = load(max_batch_size=8, allowed_batch_sizes=(4, 8))
    before = padded_by_at_most_two()
    assert call(padded, "serving_default", [1.0, 2.0, 3.0])["y"].tolist() == [2, 4, 6]
    assert padded_by_at_most_two() - before == 1
    split = load(max_batch_size=100, max_execution_batch_size=4, enable_large_batch_splitting=True)
    before = runs()
    assert call(split, "serving_default", list(range(10)))["y"].tolist() == list(range(0, 20, 2))
    assert runs() - before == 3


def test_a_full_queue_refuses_at_once(load: Load) -> None:
    servable = load(max_batch_size=1, max_enqueued_batches=1)
    found = together(servable, "slow", [[float(number)] for number in range(CLIENTS)])
    refused = [one for one in found if isinstance(one, ServingError)]
    assert 0 < len(refused) < CLIENTS
    assert {one.code for one in refused} == {StatusCode.UNAVAILABLE}
    assert all("queue to which this task was submitted is full; currently 1 batches" in one.message for one in refused)


def test_per_model_parameters_batch_only_versions_that_have_some(load: Load, tmp_path: Path) -> None:
    plain = load(per_model=True)
    assert call(plain, "two", [1.0], [1.0, 2.0])["y"].tolist() == [2.0, 3.0]
    own = tmp_path / "1"
    export_tiny(own)
    (own / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    with pytest.raises(ServingError, match="Task size 3 is larger than maximum input batch size 2"):
        call(load(per_model=True, path=own), "serving_default", [1.0, 2.0, 3.0])
    (own / "batching_params.pbtxt").write_text("max_batch_size { value: -2 }")
    with pytest.raises(ServingError, match="input_batch_size_limit must be positive"):
        load(per_model=True, path=own)
