"""The bytes that are written to Redis whole columns at a time are those that Feast makes of each value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from feast.infra.online_stores.helpers import _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from pipelines.feast_store.online_writes import hset_commands
from pipelines.feast_store.value_bytes import key_bytes, time_bytes, value_bytes, varints

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
texts = st.text(max_size=300)
longs = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def by_feast(values: list[Any], kind: ValueType) -> list[bytes]:
    return [value.SerializeToString() for value in python_values_to_proto_values(values, kind)]


@pytest.mark.parametrize(
    ("values", "kind", "arrow"),
    [
        (texts, ValueType.STRING, pa.string()),
        (longs, ValueType.INT64, pa.int64()),
        (floats, ValueType.FLOAT, pa.float32()),
        (st.lists(texts, max_size=5), ValueType.STRING_LIST, pa.list_(pa.string())),
        (st.lists(longs, max_size=5), ValueType.INT64_LIST, pa.list_(pa.int64())),
        (st.lists(floats, max_size=40), ValueType.FLOAT_LIST, pa.list_(pa.float32())),
    ],
    ids=str,
)
def test_values_are_what_feast_writes(values: Any, kind: ValueType, arrow: pa.DataType) -> None:
    @given(st.lists(values, min_size=1, max_size=8), st.integers(0, 3))
    def check(rows: list[Any], start: int) -> None:
        column = pa.array(rows, arrow).slice(min(start, len(rows) - 1))
        assert value_bytes(column).to_pylist() == by_feast(column.to_pylist(), kind)

    check()


@pytest.mark.parametrize(
    "arrow", [pa.string(), pa.int64(), pa.float32(), pa.list_(pa.string()), pa.list_(pa.float32())], ids=str
)
def test_a_null_has_no_bytes(arrow: pa.DataType) -> None:
    some = {"string": "x", "int64": 0, "float": 0.0}
    first = some.get(str(arrow), [])
    column = pa.array([first, None, first], arrow)
    assert value_bytes(column).to_pylist()[1] == b""
    assert Value.FromString(value_bytes(column).to_pylist()[0]).WhichOneof("val") is not None


def test_a_type_that_no_column_has_is_refused() -> None:
    with pytest.raises(TypeError, match="expected string, int64, float32"):
        value_bytes(pa.array([True]))
    with pytest.raises(TypeError, match="received list"):
        value_bytes(pa.array([[True]]))


@given(st.lists(st.integers(-(10**14), 10**14), min_size=1, max_size=8))
def test_times_are_protobuf_s(microseconds: list[int]) -> None:
    expected = []
    for value in microseconds:
        stamp = Timestamp()
        stamp.FromDatetime(EPOCH + timedelta(microseconds=value))
        expected.append(stamp.SerializeToString())
    assert time_bytes(np.array(microseconds)).to_pylist() == expected


@given(st.lists(texts, min_size=1, max_size=8))
def test_keys_are_feast_s(ids: list[str]) -> None:
    expected = [
        _redis_key("ml_100k", EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=text)])) for text in ids
    ]
    assert key_bytes("user_id", pa.array(ids, pa.string()), "ml_100k").to_pylist() == expected


@given(st.lists(longs, min_size=1, max_size=20))
def test_varints_are_protobuf_s(numbers: list[int]) -> None:
    tagged = [Value(int64_val=number).SerializeToString()[1:] for number in numbers]
    assert varints(np.array(numbers)).to_pylist() == tagged


def test_commands_are_redis_protocol() -> None:
    keys, values = pa.array([b"k1", b"key2"]), pa.array([b"", b"v\r\nw"])
    payload = hset_commands(keys, {b"f": values, b"_ts:v": pa.array([b"1", b"22"])}).to_pybytes()
    assert payload == (
        b"*6\r\n$4\r\nHSET\r\n$2\r\nk1\r\n$1\r\nf\r\n$0\r\n\r\n$5\r\n_ts:v\r\n$1\r\n1\r\n"
        b"*6\r\n$4\r\nHSET\r\n$4\r\nkey2\r\n$1\r\nf\r\n$4\r\nv\r\nw\r\n$5\r\n_ts:v\r\n$2\r\n22\r\n"
    )
    assert hset_commands(pa.array([], pa.binary()), {b"f": pa.array([], pa.binary())}).to_pybytes() == b""
