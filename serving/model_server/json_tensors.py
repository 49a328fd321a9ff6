"""JSON values ↔ arrays: the bodies of REST predict.

A request of well-formed rows or columns is converted column by column, without a Python step per value. Whatever that
cannot take is walked through value by value: that finds the first offender, in the real server's words, or the answer.
"""

from __future__ import annotations

import base64
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from grpc import StatusCode

from serving.model_server.errors import ServingError, invalid
from serving.model_server.json_text import (
    array_text,
    decode_base64,
    is_base64_object,
    object_text,
    pretty,
    quoted,
    type_name,
)
from serving.protocol.tensors import STRING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from serving.model_server.inference import Arrays

    _Convert = Callable[[Any, int], NDArray[Any]]

ROW, COLUMNAR = "instances", "inputs"
_BYTES_SUFFIX = "_bytes"
"""Text outputs whose name ends so are written as base64 objects."""

_NAMES = {
    1: "float",
    2: "double",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    9: "int64",
    10: "bool",
    19: "half",
    22: "uint32",
    23: "uint64",
}
_NUMPY = {
    1: np.float32,
    2: np.float64,
    3: np.int32,
    4: np.uint8,
    5: np.int16,
    6: np.int8,
    9: np.int64,
    10: np.bool_,
    22: np.uint32,
    23: np.uint64,
}
_FLOAT32, _DOUBLE, _INT64 = 1, 2, 9
_FLOATS = frozenset({_FLOAT32, _DOUBLE})
_AT_ONCE = frozenset({_FLOAT32, _INT64})
"""What NumPy converts a list to without being told."""
_EXACT_LENGTH = 16
"""A double written with so many characters is the same number to every parser."""
_BOOL = 10
_INT32_RANGE = (-(2**31), 2**31 - 1)
_RANGES = {
    3: _INT32_RANGE,
    4: _INT32_RANGE,
    5: _INT32_RANGE,
    6: _INT32_RANGE,
    9: (-(2**63), 2**63 - 1),
    22: (0, 2**32 - 1),
    23: (0, 2**64 - 1),
}
"""What is taken. The narrow types take what fits int32, and wrap around."""
_INT, _FLOAT, _STR, _TRUE = frozenset({int}), frozenset({int, float}), frozenset({str}), frozenset({bool})


def _kinds(dtype: int) -> frozenset[type]:
    """Return the types of the plain values that are taken for a data type."""
    if dtype == STRING:
        return _STR
    if dtype not in _NUMPY:
        return frozenset()
    return _FLOAT if dtype in _FLOATS else _TRUE if dtype == _BOOL else _INT


def _objects(flat: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array


class _Irregular(Exception):  # noqa: N818 - control flow, not an error
    """The fast conversion does not apply."""


# Requests


@np.errstate(over="ignore")  # beyond float32 there is infinity
def regular_inputs(
    body: Mapping[str, Any], expected: Mapping[str, Any], *, may_have_bools: bool = True
) -> tuple[str, Arrays] | None:
    """Return what `request_inputs` returns, or None if any value needs a closer look.

    Args:
        body: What `json_text.parse_quickly` made of the request.
        expected: Input name → TensorInfo of the signature.
        may_have_bools: Whether any value may be true or false, which NumPy takes for 1 and 0 among numbers.
    """
    convert = _regular if may_have_bools else _regular_numbers
    try:
        if COLUMNAR in body and ROW not in body:
            return COLUMNAR, _regular_columns(body[COLUMNAR], expected, convert)
        instances = body.get(ROW)
        if COLUMNAR not in body and isinstance(instances, list) and instances:
            return ROW, _regular_rows(instances, expected, convert)
    except (_Irregular, OverflowError):
        pass
    return None


@np.errstate(over="ignore")
def request_inputs(body: Mapping[str, Any], expected: Mapping[str, Any]) -> tuple[str, Arrays]:
    """Return the format (ROW or COLUMNAR) and the inputs of a predict body.

    Args:
        body: What `json_text.parse` made of the request.
        expected: Input name → TensorInfo of the signature.

    Raises:
        ServingError: INVALID_ARGUMENT, naming the first value that does not fit.
    """
    if ROW in body:
        if COLUMNAR in body:
            msg = (
                f"JSON Value: {pretty(body)} Not formatted correctly expecting only one of '{COLUMNAR}' or "
                f"'{ROW}' keys to exist "
            )
            raise invalid(msg)
        instances = body[ROW]
        if not isinstance(instances, list):
            msg = f"JSON Value: {pretty(body)} Expecting '{ROW}' to be an list/array"
            raise invalid(msg)
        if not instances:
            msg = f"JSON Value: {pretty(body)} No values in '{ROW}' array"
            raise invalid(msg)
        return ROW, _walked_rows(instances, expected)
    if COLUMNAR in body:
        return COLUMNAR, _walked_columns(body[COLUMNAR], expected)
    msg = f"Missing '{COLUMNAR}' or '{ROW}' key"
    raise invalid(msg)


def _regular_rows(instances: list[Any], expected: Mapping[str, Any], convert: _Convert) -> Arrays:
    if isinstance(instances[0], dict) and not is_base64_object(instances[0]):
        if set(map(type, instances)) != {dict} or set(map(len, instances)) != {len(expected)}:
            raise _Irregular
        try:
            return {name: convert([row[name] for row in instances], info.dtype) for name, info in expected.items()}
        except KeyError:
            raise _Irregular from None
    if len(expected) != 1:
        raise _Irregular
    ((name, info),) = expected.items()
    return {name: convert(instances, info.dtype)}


def _regular_columns(value: Any, expected: Mapping[str, Any], convert: _Convert) -> Arrays:  # noqa: ANN401 - any JSON value
    if not isinstance(value, dict) or is_base64_object(value):
        if len(expected) != 1:
            raise _Irregular
        value = {next(iter(expected)): value}
    if not expected.keys() <= value.keys():
        raise _Irregular
    return {name: convert(value[name], info.dtype) for name, info in expected.items()}


def _regular_numbers(values: Any, dtype: int) -> NDArray[Any]:  # noqa: ANN401 - any JSON value
    """Convert as `_regular` does where no leaf is a bool: NumPy's type then tells what the leaves are."""
    if dtype in _AT_ONCE:
        try:
            array = np.array(values)
        except (ValueError, TypeError):  # lists of several lengths
            return _regular(values, dtype)
        if dtype == _INT64 and array.dtype == np.int64:
            return array
        if dtype == _FLOAT32 and array.dtype.kind in "fi":
            return array.astype(np.float64, copy=False).astype(np.float32)  # an integer is a double first
    return _regular(values, dtype)


def _regular(values: Any, dtype: int) -> NDArray[Any]:  # noqa: ANN401 - any JSON value
    """Convert a nested list whose sub-lists are all of one length, and whose leaves are all of a fitting type."""
    flat, shape = _flattened(values)
    if not set(map(type, flat)) <= _kinds(dtype):
        raise _Irregular
    if dtype == STRING:
        return _objects(flat).reshape(shape)  # TensorFlow takes str for bytes
    if dtype == _DOUBLE and max(map(len, map(repr, flat)), default=0) > _EXACT_LENGTH:
        # Longer ones are not always read as the nearest double.
        raise _Irregular
    return _numbers(flat, dtype).reshape(shape)  # an OverflowError for an integer out of range


def _flattened(values: Any) -> tuple[list[Any], list[int]]:  # noqa: ANN401 - any JSON value
    if not isinstance(values, list):
        return [values], []
    flat, shape = values, [len(values)]
    while flat and isinstance(flat[0], list):
        if set(map(type, flat)) != {list}:
            raise _Irregular
        lengths = set(map(len, flat))
        if len(lengths) != 1:
            raise _Irregular
        shape.append(lengths.pop())
        flat = list(chain.from_iterable(flat))
    return flat, shape


def _numbers(flat: list[Any], dtype: int) -> NDArray[Any]:
    if dtype in _FLOATS:
        return np.fromiter(flat, dtype=_NUMPY[dtype], count=len(flat))
    if _RANGES.get(dtype) == _INT32_RANGE:
        return np.array(flat, dtype=np.int32).astype(_NUMPY[dtype])
    return np.array(flat, dtype=_NUMPY[dtype])


# The walk: value by value, as the real server goes


def _walked_rows(instances: list[Any], expected: Mapping[str, Any]) -> Arrays:
    if not isinstance(instances[0], dict) and len(expected) > 1:
        msg = (
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
        raise invalid(msg)
    as_objects = isinstance(instances[0], dict) and not is_base64_object(instances[0])
    columns: dict[str, list[tuple[tuple[int, ...], list[Any]]]] = {}
    for place, row in enumerate(instances):
        is_object = isinstance(row, dict) and not is_base64_object(row)
        if as_objects and not is_object:
            msg = f"Expecting object but got list at item {place} of input list"
            raise invalid(msg)
        if is_object and not as_objects:
            msg = f"Expecting value/list but got object at item {place} of input list"
            raise invalid(msg)
        _walk_row(place, row if as_objects else {next(iter(expected)): row}, as_objects, expected, columns)
    return {
        name: _leaves_array(
            [leaf for _, leaves in rows for leaf in leaves], expected[name].dtype, (len(instances), *rows[0][0])
        )
        for name, rows in columns.items()
    }


def _walk_row(
    place: int,
    row: Mapping[str, Any],
    as_object: bool,  # noqa: FBT001 - private, one call
    expected: Mapping[str, Any],
    columns: dict[str, list[tuple[tuple[int, ...], list[Any]]]],
) -> None:
    for name, value in row.items():
        try:
            if name not in expected:
                msg = f"JSON object: does not have named input: {name}"
                raise invalid(msg)
            cell = _walked(value, expected[name].dtype)
            rows = columns.setdefault(name, [])
            if rows:
                _check_same(rows[0], cell)
            rows.append(cell)
        except ServingError as error:
            key = f" key: {name}" if as_object else ""
            msg = f"Failed to process element: {place}{key} of '{ROW}' list. Error: {error.code.name}: {error.message}"
            raise ServingError(error.code, msg) from error
    if as_object and row.keys() != expected.keys():
        msg = (
            f"Failed to process element: {place} of '{ROW}' list. JSON object: {pretty(row)} keys must be equal "
            f"to: {','.join(sorted(expected))}"
        )
        raise invalid(msg)


def _check_same(first: tuple[tuple[int, ...], list[Any]], cell: tuple[tuple[int, ...], list[Any]]) -> None:
    if len(first[1]) != len(cell[1]):
        msg = f"Expecting tensor size: {len(first[1])} but got: {len(cell[1])}"
        raise invalid(msg)
    if first[0] != cell[0]:
        msg = f"Expecting shape {_shape_text(first[0])} but got: {_shape_text(cell[0])}"
        raise invalid(msg)


def _shape_text(shape: Sequence[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def _walked_columns(value: Any, expected: Mapping[str, Any]) -> Arrays:  # noqa: ANN401 - any JSON value
    if not isinstance(value, dict) or is_base64_object(value):
        if len(expected) > 1:
            msg = (
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
            raise invalid(msg)
        value = {next(iter(expected)): value}
    columns: Arrays = {}
    for name, info in expected.items():
        if name not in value:
            msg = f"Missing named input: {name} in '{COLUMNAR}' object."
            raise invalid(msg)
        shape, leaves = _walked(value[name], info.dtype)
        columns[name] = _leaves_array(leaves, info.dtype, shape)
    return columns


def _walked(value: Any, dtype: int) -> tuple[tuple[int, ...], list[Any]]:  # noqa: ANN401 - any JSON value
    """Return shape and leaves of a value; the shape is that of the first element at each level."""
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    leaves: list[Any] = []
    _walk(value, 0, shape, dtype, leaves)
    return tuple(shape), leaves


def _walk(value: Any, level: int, shape: Sequence[int], dtype: int, leaves: list[Any]) -> None:  # noqa: ANN401 - any JSON value
    if not isinstance(value, list):
        if level != len(shape):
            msg = (
                f"JSON Value: {pretty(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at "
                f"level: {len(shape)}"
            )
            raise invalid(msg)
        leaves.append(_leaf(value, dtype))
        return
    if level >= len(shape):
        msg = f"Encountered list at unexpected level: {level} expected < {len(shape)}"
        raise invalid(msg)
    if len(value) != shape[level]:
        msg = f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        raise invalid(msg)
    for element in value:
        _walk(element, level + 1, shape, dtype, leaves)


def _leaf(value: Any, dtype: int) -> Any:  # noqa: ANN401 - any JSON value
    if dtype == STRING:
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
        if is_base64_object(value):
            return decode_base64(value)
        if isinstance(value, dict):
            msg = f"JSON Value: {pretty(value)} not formatted correctly for base64 data"
            raise invalid(msg)
        raise _type_error(value, dtype)
    if dtype not in _NUMPY:
        msg = f"Conversion of JSON Value: {pretty(value)} to type: {_NAMES.get(dtype, dtype)}"
        raise ServingError(StatusCode.UNIMPLEMENTED, msg)
    if type(value) not in _kinds(dtype):
        raise _type_error(value, dtype)
    if dtype in _RANGES and not _RANGES[dtype][0] <= value <= _RANGES[dtype][1]:
        raise _type_error(value, dtype)
    return value


def _type_error(value: Any, dtype: int) -> ServingError:  # noqa: ANN401 - any JSON value
    name = _NAMES.get(dtype, str(dtype))
    return invalid(f"JSON Value: {pretty(value)} Type: {type_name(value)} is not of expected type: {name}")


def _leaves_array(leaves: list[Any], dtype: int, shape: Sequence[int]) -> NDArray[Any]:
    if dtype == STRING:
        return _objects(leaves).reshape(shape)
    return _numbers(leaves, dtype).reshape(shape)


# Responses


def response_body(outputs: Arrays, request_format: str) -> str:
    """Write the outputs of a predict call, by row or by column as the request came.

    Raises:
        ServingError: By row: an output has no batch dimension, or not the others' batch size.
    """
    if request_format == COLUMNAR:
        return object_text([("outputs", _columns_text(outputs))], 0)
    sizes: dict[int, str] = {}
    for name, array in outputs.items():
        if not array.ndim:
            msg = f"Tensor name: {name} has no shape information "
            raise invalid(msg)
        sizes.setdefault(len(array), name)
        if len(sizes) > 1:
            msg = f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {next(iter(sizes))}"
            raise invalid(msg)
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        rows = _nested_text(array, name, 2, single_line=True)
        return '{\n    "predictions": [' + ", ".join(rows) + ("\n    ]\n}" if rows else "]\n}")
    columns = [(name, _nested_text(array, name, 3, single_line=True)) for name, array in outputs.items()]
    rows = [object_text([(name, texts[row]) for name, texts in columns], 2) for row in range(len(columns[0][1]))]
    return object_text([("predictions", array_text(rows, 1, single_line=False))], 0)


def _columns_text(outputs: Arrays) -> str:
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        return _tensor_text(array, name, 1)
    return object_text([(name, _tensor_text(array, name, 2)) for name, array in outputs.items()], 1)


def _tensor_text(array: NDArray[Any], name: str, depth: int) -> str:
    leaves = _leaf_texts(array, name, depth + array.ndim)
    return _folded(leaves, array.shape, depth, single_line=False)


def _nested_text(array: NDArray[Any], name: str, depth: int, *, single_line: bool) -> list[str]:
    """Write each element along the first axis, which lies at `depth`."""
    rank = array.ndim - 1
    leaves = _leaf_texts(array, name, depth + rank)
    if not rank:
        return leaves
    size = int(np.prod(array.shape[1:]))
    return [
        _folded(leaves[row * size : (row + 1) * size], array.shape[1:], depth, single_line=single_line)
        for row in range(len(array))
    ]


def _folded(leaves: list[str], shape: Sequence[int], depth: int, *, single_line: bool) -> str:
    """Put written leaves into nested arrays of `shape`."""
    texts = leaves
    if not shape:
        return texts[0]
    if 0 in shape:
        return _empty_text(shape, depth, single_line=single_line)
    for level in range(len(shape) - 1, -1, -1):
        size = shape[level]
        texts = [
            array_text(texts[start : start + size], depth + level, single_line=single_line)
            for start in range(0, len(texts), size)
        ]
    return texts[0]


def _empty_text(shape: Sequence[int], depth: int, *, single_line: bool) -> str:
    if not shape[0]:
        return "[]"
    inner = _empty_text(shape[1:], depth + 1, single_line=single_line)
    return array_text([inner] * shape[0], depth, single_line=single_line)


def _leaf_texts(array: NDArray[Any], name: str, depth: int) -> list[str]:
    flat = array.ravel()
    match array.dtype.kind:
        case "f":
            return float_texts(flat)
        case "b":
            return ["true" if value else "false" for value in flat.tolist()]
        case "i" | "u":
            return list(map(str, flat.tolist()))
        case "O" if name.endswith(_BYTES_SUFFIX):
            return [object_text([("b64", quoted(base64.b64encode(value).decode()))], depth) for value in flat.tolist()]
        case "O":
            return [quoted(value.decode("utf-8", "surrogateescape")) for value in flat.tolist()]
    msg = f"Failed to write JSON value for tensor type: {array.dtype}"
    raise invalid(msg)


def float_texts(flat: NDArray[Any]) -> list[str]:
    """Write numbers with six digits where that reads back the same, else with as many as the type can need."""
    if flat.dtype == np.float16:
        flat = flat.astype(np.float32)
    digits = 9 if flat.dtype == np.float32 else 17
    short = _has_six_digits(flat).tolist()
    texts = [
        f"{value:.{_DIGITS}g}" if is_short else f"{value:.{digits}g}"
        for value, is_short in zip(flat.tolist(), short, strict=True)
    ]
    return [text if "." in text or "e" in text else _SPECIAL.get(text) or text + ".0" for text in texts]


_DIGITS = 6
_TENS = np.array([float(f"1e{power}") for power in range(-5, 11)])
_ONE = 5
"""The place of 1 among them."""


def _has_six_digits(flat: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which numbers six significant digits read back to, `[n]`.

    Six digits over a power of ten are the double that their text reads as, as both are exact. Beyond the powers at hand
    the text itself is read.
    """
    sizes = np.abs(flat.astype(np.float64))
    power = np.searchsorted(_TENS, sizes, side="right") - 1 - _ONE
    at_hand = ((power >= -_ONE) & (power < _DIGITS)) | (sizes == 0)
    scale = _TENS[_ONE + np.where(at_hand, np.minimum(_DIGITS - 1 - power, len(_TENS) - 1 - _ONE), 0)]
    same: NDArray[np.bool_] = (np.rint(sizes * scale) / scale).astype(flat.dtype) == np.abs(flat)
    for place in np.flatnonzero(~at_hand).tolist():
        same[place] = flat.dtype.type(f"{flat[place]:.{_DIGITS}g}") == flat[place]
    return same


_SPECIAL = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def error_body(message: str) -> str:
    """Write an error as the real server does."""
    return object_text([("error", quoted(message))], 0)


def classification_body(rows: Sequence[Sequence[tuple[str, float]]]) -> str:
    """Write label and score of every class, one list for each example."""
    scores = iter(float_texts(np.array([score for row in rows for _, score in row], dtype=np.float32)))
    texts = ["[" + ", ".join(f"[{quoted(label)}, {next(scores)}]" for label, _ in row) + "]" for row in rows]
    return '{\n    "results": [' + ", ".join(texts) + "\n    ]\n}"


def regression_body(values: Sequence[float]) -> str:
    """Write one number for each example."""
    return '{\n    "results": [' + ", ".join(float_texts(np.array(values, dtype=np.float32))) + "]\n}"
