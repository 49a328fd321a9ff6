"""numpy → TensorProto → numpy, and what malformed tensors lead to."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from feature_repo.contracts.publishing import CorruptRecordError
from serving.protocol.errors import TensorError
from serving.protocol.golden import read_golden
from serving.protocol.messages import TensorProto
from serving.protocol.tensors import fill_tensor, fill_values, read_tensor

numbers = arrays.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.int32, np.int8, np.uint8, np.uint64, np.bool_, np.float16]),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@settings(deadline=None)
@given(numbers, st.sampled_from([fill_tensor, fill_values]))
def test_numbers_survive_either_field(array: np.ndarray, fill: object) -> None:
    tensor = TensorProto()
    (fill_tensor if fill is fill_tensor else fill_values)(tensor, array)
    read = read_tensor(TensorProto.FromString(tensor.SerializeToString()))
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(read, array)


@settings(deadline=None)
@given(st.lists(st.text() | st.binary()))
def test_text_comes_back_as_bytes(texts: list[str | bytes]) -> None:
    tensor = TensorProto()
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    fill_tensor(tensor, array)
    assert read_tensor(tensor).tolist() == [text.encode() if isinstance(text, str) else text for text in texts]


def test_short_value_fields_repeat_their_last_value() -> None:
    tensor = TensorProto(dtype=1, float_val=[1.0, 2.0])
    tensor.tensor_shape.dim.add().size = 4
    assert read_tensor(tensor).tolist() == [1, 2, 2, 2]
    del tensor.float_val[:]
    assert read_tensor(tensor).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("dtype", "size", "content"), [(1, 3, b"abc"), (1, -1, b""), (0, 1, b""), (20, 1, b"")])
def test_malformed_tensors_are_refused(dtype: int, size: int, content: bytes) -> None:
    tensor = TensorProto(dtype=dtype, tensor_content=content)
    tensor.tensor_shape.dim.add().size = size
    with pytest.raises(TensorError):
        read_tensor(tensor)


def test_what_no_tensor_can_carry_is_refused() -> None:
    with pytest.raises(TensorError, match="datetime64"):
        fill_tensor(TensorProto(), np.array(["2020-01-01"], dtype="datetime64[D]"))
    with pytest.raises(TensorError, match="expected str or bytes"):
        fill_tensor(TensorProto(), np.array(["a", 3], dtype=object))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a JSON object"),
        ('{"requests": []}', "at least one"),
        ('{"requests": [3]}', "request 0: expected an object"),
        ('{"requests": [{"signature_name": "a", "inputs": {}, "score": ["x"]}]}', "field score: expected numbers"),
        ('{"requests": [{"signature_name": "a", "inputs": [], "score": []}]}', "field inputs: expected a dict"),
    ],
)
def test_a_broken_golden_file_is_named(tmp_path_factory: pytest.TempPathFactory, text: str, message: str) -> None:
    path = tmp_path_factory.mktemp("golden") / "golden.json"
    path.write_text(text)
    with pytest.raises(CorruptRecordError, match=message):
        read_golden(path)


@pytest.mark.parametrize("shape", [[2**40], [2**62, 2**62], [-1], [2**63 - 1]])
@pytest.mark.parametrize("dtype", [1, 7, 9])
def test_a_tensor_that_claims_far_more_than_it_carries_is_refused_without_its_memory(
    shape: list[int], dtype: int
) -> None:
    tensor = TensorProto(dtype=dtype)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    tracemalloc.start()
    try:
        with pytest.raises(TensorError):
            read_tensor(tensor)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
