"""Columns of Arrow values → the bytes that Feast stores for them, whole columns at a time.

The layout is in docs/feast-redis-layout.md: a value is a `feast.types.Value`, a time a `google.protobuf.Timestamp`, and
no value is no bytes. Making a message object for every value, as Feast's own writer does, takes ten times as long.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.value_type import ValueType

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOTHING = pa.scalar(b"", pa.binary())
_VARINT_BITS = 7
_VARINT_BYTES = 10
_STRING, _INT64, _FLOAT = b"\x12", b"\x20", b"\x35"
_STRING_LIST, _FLOAT_LIST, _INT64_LIST = b"\x62", b"\x82\x01", b"\x72"
"""Tags of Value's fields: number and wire type, as protobuf writes them."""
_ELEMENT = b"\x0a"
"""The tag of field 1, length-delimited: the elements of a list message."""
_SECONDS, _NANOSECONDS = b"\x08", b"\x10"
_MICROSECOND = 1000


def value_bytes(values: pa.Array) -> pa.BinaryArray:
    """Return each value as a serialised `feast.types.Value`; a null has no bytes.

    TypeError for a type that no column of the contracts has.
    """
    kind = values.type
    if pa.types.is_string(kind):
        content = _tagged(_STRING, _delimited(values.cast(pa.binary())))
    elif pa.types.is_int64(kind):
        content = _tagged(_INT64, varints(pc.fill_null(values, 0).to_numpy()))
    elif pa.types.is_float32(kind):
        content = _tagged(_FLOAT, _fixed(pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False)))
    elif pa.types.is_list(kind):
        content = _list_bytes(values)
    else:
        msg = f"online value: expected string, int64, float32 or a list of them, received {kind}"
        raise TypeError(msg)
    return pc.if_else(pc.is_valid(values), content, _NOTHING)


def time_bytes(microseconds: NDArray[np.int64]) -> pa.BinaryArray:
    """Return moments, in microseconds since 1970, as serialised `Timestamp`s, without the fields that are zero."""
    seconds, rest = np.divmod(microseconds, 1_000_000)
    whole = pc.if_else(pa.array(seconds != 0), _tagged(_SECONDS, varints(seconds)), _NOTHING)
    part = pc.if_else(pa.array(rest != 0), _tagged(_NANOSECONDS, varints(rest * _MICROSECOND)), _NOTHING)
    return _joined(whole, part)


def key_bytes(join_key: str, ids: pa.Array, project: str) -> pa.BinaryArray:
    """Return the keys of the hashes of entities: Feast's entity key, version 3, of one string key; then the project."""
    name = join_key.encode()
    text = ids.cast(pa.binary())
    head = struct.pack("<III", 1, ValueType.STRING.value, len(name)) + name + struct.pack("<I", ValueType.STRING.value)
    lengths = _fixed(pc.binary_length(text).to_numpy().astype("<i4"))
    return _joined(pa.scalar(head, pa.binary()), lengths, text, pa.scalar(project.encode(), pa.binary()))


def varints(numbers: NDArray[np.int64]) -> pa.BinaryArray:
    """Return integers as protobuf varints: seven bits a byte, the lowest first; negative ones as two's complement."""
    rest = np.ascontiguousarray(numbers, dtype=np.int64).view(np.uint64)
    shifts = np.arange(_VARINT_BYTES, dtype=np.uint64) * np.uint64(_VARINT_BITS)
    digits = rest[:, None] >> shifts
    lengths = np.maximum((digits != 0).sum(axis=1), 1)
    digits = digits.astype(np.uint8) & 0x7F
    place = np.arange(_VARINT_BYTES)
    digits[place < lengths[:, None] - 1] |= 0x80
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return _binary(offsets, digits[place < lengths[:, None]])


def _list_bytes(values: pa.ListArray) -> pa.Array:
    element = values.type.value_type
    if pa.types.is_string(element):
        flat = _tagged(_ELEMENT, _delimited(values.flatten().cast(pa.binary())))
        return _tagged(_STRING_LIST, _delimited(_packed(values, flat)))
    if pa.types.is_float32(element):
        tag, flat = _FLOAT_LIST, _fixed(values.flatten().to_numpy(zero_copy_only=False))
    elif pa.types.is_int64(element):
        tag, flat = _INT64_LIST, varints(values.flatten().to_numpy())
    else:
        msg = f"online value: expected a list of string, float32 or int64, received {values.type}"
        raise TypeError(msg)
    packed = _delimited(_packed(values, flat))
    is_empty = pc.equal(pc.fill_null(pc.list_value_length(values), 0), 0)
    return _tagged(tag, _delimited(pc.if_else(is_empty, _NOTHING, _tagged(_ELEMENT, packed))))


def _packed(values: pa.ListArray, elements: pa.BinaryArray) -> pa.BinaryArray:
    """Join the bytes of each list's elements, which stand in the order of the lists."""
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
    ends = np.concatenate([[0], np.cumsum(lengths)])
    offsets = np.frombuffer(elements.buffers()[1], np.int32)[elements.offset : elements.offset + len(elements) + 1]
    return _binary(offsets[ends], elements.buffers()[2])


def _delimited(content: pa.Array) -> pa.Array:
    """Return each value's length, as a varint, and the value."""
    content = pc.fill_null(content, _NOTHING)
    return _joined(varints(pc.binary_length(content).to_numpy().astype(np.int64)), content)


def _tagged(tag: bytes, content: pa.Array) -> pa.Array:
    return _joined(pa.scalar(tag, pa.binary()), content)


def _fixed(numbers: NDArray[np.generic]) -> pa.BinaryArray:
    """Return the little-endian bytes of numbers of one width."""
    numbers = np.ascontiguousarray(numbers, dtype=numbers.dtype.newbyteorder("<"))
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * numbers.itemsize
    return _binary(offsets, numbers)


def _binary(offsets: NDArray[np.generic], data: NDArray[np.generic] | pa.Buffer | None) -> pa.BinaryArray:
    """Return the values of `data` that lie between the offsets."""
    content = data if isinstance(data, pa.Buffer) else pa.py_buffer(b"" if data is None else np.ascontiguousarray(data))
    starts = np.ascontiguousarray(offsets, dtype=np.int32)
    return pa.BinaryArray.from_buffers(pa.binary(), len(starts) - 1, [None, pa.py_buffer(starts), content])


def _joined(*parts: pa.Array | pa.Scalar) -> pa.Array:
    return pc.binary_join_element_wise(*parts, _NOTHING)
