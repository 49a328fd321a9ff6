"""JSON of the REST side: the fast way and the thorough way agree, and nothing crashes either."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.model_server import json_tensors, json_text
from serving.model_server.errors import ServingError

FLOAT, STRING, INT64 = 1, 7, 9
SIGNATURE = {"x": SimpleNamespace(dtype=FLOAT), "s": SimpleNamespace(dtype=STRING), "n": SimpleNamespace(dtype=INT64)}

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
    | st.sampled_from(["x", "instances", "inputs"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["x", "s", "n", "b64"]) | st.text(), inner)
)
rows = st.fixed_dictionaries({"x": values, "s": values, "n": values})
regular_rows = st.fixed_dictionaries(
    {
        "x": st.floats(width=32, allow_infinity=False, allow_nan=False),
        "s": st.text(),
        "n": st.integers(-(2**63), 2**63 - 1),
    }
)
bodies = st.fixed_dictionaries(
    {},
    optional={"instances": st.lists(rows | regular_rows) | values, "inputs": rows | values, "signature_name": values},
)


nested_numbers = st.recursive(
    st.lists(st.integers(-(2**66), 2**66) | st.floats() | st.text(max_size=2))
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1)
    | st.lists(st.floats(), min_size=1),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


def inputs_of(raw: bytes, signature: dict[str, Any]) -> Any:
    try:
        return json_tensors.request_inputs(json_text.parse(raw), signature)
    except ServingError as error:
        return error


def same(one: tuple[str, Any], other: tuple[str, Any]) -> bool:
    return (
        one[0] == other[0]
        and one[1].keys() == other[1].keys()
        and all(
            array.dtype == other[1][name].dtype
            and array.shape == other[1][name].shape
            and array.tobytes() == other[1][name].tobytes()
            if array.dtype != object
            else [_bytes(value) for value in array.tolist()] == [_bytes(value) for value in other[1][name].tolist()]
            for name, array in one[1].items()
        )
    )


def _bytes(value: Any) -> Any:
    """Return text as TensorFlow stores it."""
    return (
        [_bytes(one) for one in value]
        if isinstance(value, list)
        else value.encode()
        if isinstance(value, str)
        else value
    )


@settings(deadline=None)
@given(bodies)
def test_fast_and_thorough_conversion_agree(body: Any) -> None:
    raw = json.dumps(body).encode()
    quick = json_text.parse_quickly(raw)
    if quick is None:
        return
    thorough = inputs_of(raw, SIGNATURE)
    fast = json_tensors.regular_inputs(quick, SIGNATURE)
    if fast is not None:
        assert not isinstance(thorough, ServingError), thorough
        assert same(fast, thorough)
    if b"true" in raw or b"false" in raw:
        return
    fastest = json_tensors.regular_inputs(quick, SIGNATURE, may_have_bools=False)
    assert (fastest is None) == (fast is None)
    assert fastest is None or same(fastest, thorough)


@settings(deadline=None)
@given(st.sampled_from(sorted(SIGNATURE)), nested_numbers)
def test_without_bools_numbers_are_converted_at_once_with_the_same_result(name: str, values: Any) -> None:
    body, expected = {"inputs": {name: values}}, {name: SIGNATURE[name]}
    fast = json_tensors.regular_inputs(body, expected)
    fastest = json_tensors.regular_inputs(body, expected, may_have_bools=False)
    assert (fastest is None) == (fast is None)
    assert fast is None or same(fast, fastest)


@settings(deadline=None)
@given(st.lists(regular_rows, min_size=1))
def test_well_formed_rows_take_the_fast_way(instances: Any) -> None:
    quick = json_text.parse_quickly(json.dumps({"instances": instances}).encode())
    assert quick is not None
    assert json_tensors.regular_inputs(quick, SIGNATURE) is not None


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode) | bodies.map(lambda body: json.dumps(body).encode()[:-1]))
def test_any_body_is_an_answer_or_an_error_in_words(raw: bytes) -> None:
    found = inputs_of(raw, SIGNATURE)
    if isinstance(found, ServingError):
        assert found.http_status == 400
        written = json_tensors.error_body(found.message).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        assert json.loads(written, strict=False).keys() == {"error"}


@settings(deadline=None)
@given(st.dictionaries(st.text(), values))
def test_the_thorough_parser_reads_what_the_standard_library_reads(value: Any) -> None:
    raw = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    read, expected = (
        json_text.parse(raw),
        json.loads(raw, parse_int=lambda text: int(text) if -(2**63) <= int(text) < 2**64 else float(text)),
    )
    assert alike(read, expected), (read, expected)


def alike(read: object, expected: object) -> bool:
    """Tell whether two JSON values are the same, but for the last bit of a double."""
    if type(read) is not type(expected):
        return False
    if isinstance(read, dict):
        return read.keys() == expected.keys() and all(alike(read[name], expected[name]) for name in read)
    if isinstance(read, list):
        return len(read) == len(expected) and all(map(alike, read, expected))
    if isinstance(read, float):
        return math.isclose(read, expected, rel_tol=1e-15, abs_tol=1e-300) or (
            math.isnan(read) and math.isnan(expected)
        )
    return read == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9007199254740993.5", 9007199254740992.0),
        ("123456789012345678901234567890", 1.2345678901234566e29),
        ("0.30000000000000004", 0.30000000000000004),
        ("12345678901234567890.12345", 1.2345678901234567e19),
        ("-9223372036854775809", -9.223372036854776e18),
        ("5e-324", 5e-324),
        ("1e-400", 0.0),
        ("1844670.144073709551616", 1844670.1440737094),
        ("123e308", math.inf),
        ("-Inf", -math.inf),
    ],
)
def test_a_double_is_read_with_rapidjsons_rounding(text: str, value: float) -> None:
    assert json_text.parse(f'{{"a": {text}}}'.encode()) == {"a": value}


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_is_written_so_that_it_reads_back(value: float) -> None:
    assert float(json_text.double_text(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1000.0, "1000.0"),
        (1e21, "1e21"),
        (1e20, "100000000000000000000.0"),
        (1.5e-7, "1.5e-7"),
        (0.00001, "0.00001"),
        (-0.0, "-0.0"),
        (2.0**64, "18446744073709553000.0"),
    ],
)
def test_doubles_look_as_rapidjson_writes_them(value: float, text: str) -> None:
    assert json_text.double_text(value) == text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The document is empty"),
        (b'{"a":1', "Missing a comma or '}' after an object member. at offset: 6"),
        (b'{"a":[1,]}', "Invalid value. at offset: 8"),
        (b"{a:1}", "Missing a name for object member. at offset: 1"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b'{"a":1e400}', "Number too big to be stored in double. at offset: 5"),
        (b'{"a":1' + b"0" * 309 + b"}", "Number too big to be stored in double. at offset: 5"),
        (b'{"a":1.}', "Miss fraction part in number. at offset: 7"),
        (b'{"a":-2e+}', "Miss exponent in number. at offset: 9"),
        (b'{"a":-}', "Invalid value. at offset: 6"),
        (b'{"a":nul}', "Invalid value. at offset: 8"),
        (b'{"a":Nax}', "Invalid value. at offset: 7"),
        (b'{"a":-Inx}', "Invalid value. at offset: 8"),
        (b'{"a":Infinitx}', "Invalid value. at offset: 12"),
        (b'{"a":"\\ud800"}', "The surrogate pair in string is invalid. at offset: 6"),
        (b'{"a":"\\ud800\\u0041"}', "The surrogate pair in string is invalid. at offset: 6"),
        (b'{"a":"b\\u12G4"}', "Incorrect hex digit after \\u escape in string. at offset: 7"),
        (b'{"a":"b\\q"}', "Invalid escape character in string. at offset: 7"),
        (b'{"a":"b\nc"}', "Invalid escape character in string. at offset: 7"),
        (b'{"a":"bc', "Missing a closing quotation mark in string. at offset: 8"),
        (b'{"a', "Missing a closing quotation mark in string. at offset: 3"),
        (b'{"a": ["b", "\xc3\xa9', "Missing a closing quotation mark in string. at offset: 15"),
        (b'{"a":"b\x00c"}', "Missing a closing quotation mark in string. at offset: 7"),
        (b'\xef\xbb\xbf{"a":"b', "Missing a closing quotation mark in string. at offset: 10"),
        (b'\xbb{"a":', "Invalid value. at offset: 6"),
        (b"\x00{}", "The document is empty. at offset: 0"),
        (b"  ]", "The document is empty. at offset: 2"),
        (b"[" * 100_000, "Nested deeper than"),
    ],
)
def test_errors_name_the_offset(body: bytes, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        json_text.parse(body)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'"\\udc00"', '"\udced\udcb0\udc80"'),
        (b'"\\ud83d\\ude00"', '"\U0001f600"'),
        (b"[1, NaN, 2]", "[1, "),
        (b'["a", [Inf], 2]', '["a", ['),
        (b"[" + b"7," * 99 + b"7]", "[" + ", ".join(["7"] * 63)),
        (b"[[" + b"7," * 99 + b"7], 8]", "[[" + ", ".join(["7"] * 62)),
        (b"[" + b"7," * 62 + b"7]", "[" + ", ".join(["7"] * 63) + "]"),
        (b"[" * 99 + b"]" * 99, "[" * 64),
        (
            b'[{"a": {}, "b": [' + b"1.5," * 99 + b"null]}]",
            '[{\n        "a": {},\n        "b": [' + ", ".join(["1.5"] * 60),
        ),
    ],
)
def test_a_quotation_breaks_off_where_the_real_one_does(body: bytes, text: str) -> None:
    with pytest.raises(ServingError) as caught:
        json_text.parse(body)
    assert caught.value.message == f"JSON Value: {text} Is not object"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": "\\ud83d\\ude00 \\u00e9"}', {"a": "\U0001f600 \u00e9"}),
        (b'{"a": "\\ude00\\ud83d"}', None),
        (b'{"a": "\\ude00\\ud83d", "b": NaN}', None),
        (b'{"a": 1e400}', None),
        (b'{"a": [NaN, 1e400]}', None),
        (b'{"a": [Infinity, -Infinity], "b": "\\u00e9"}', {"a": [math.inf, -math.inf], "b": "\u00e9"}),
        (b'{"a": 1, "a": 2}', {"a": 1}),
        (b'{"a" : 1, "a": 2, "b:": 3}', {"a": 1, "b:": 3}),
        (b'{"a": {"b": 1, "b": 2}, "c": ":"}', {"a": {"b": 1}, "c": ":"}),
        (b'{"a": [{"b": 1, "c": 2}, {"b": 1, "b": 2}]}', {"a": [{"b": 1, "c": 2}, {"b": 1}]}),
        (b'{"a": [[{"b": 1, "b": 2}]]}', {"a": [[{"b": 1}]]}),
        (b'{"a": 1} {"b": 2}', None),
        (b"[1]", None),
        (b'{"a": "\xff"}', None),
    ],
)
def test_a_well_formed_body_is_read_quickly_and_with_the_same_result(body: bytes, value: Any) -> None:
    assert json_text.parse_quickly(body) == value
    if value is not None:
        assert json_text.parse(body) == value


def test_floats_beyond_the_type_are_infinite_both_ways() -> None:
    body = {"inputs": {"x": [1e39, -math.inf, 2**64, 1]}}
    found = json_tensors.regular_inputs(body, {"x": SIGNATURE["x"]})
    _, thorough = json_tensors.request_inputs(body, {"x": SIGNATURE["x"]})
    assert found is not None
    assert found[1]["x"].tolist() == thorough["x"].tolist() == [math.inf, -math.inf, 2.0**64, 1.0]


def test_text_of_both_ways_is_the_same_to_tensorflow() -> None:
    body = {"s": ["a", "\u00e9\U0001f600", ""]}
    found = json_tensors.regular_inputs({"inputs": body}, {"s": SIGNATURE["s"]})
    _, thorough = json_tensors.request_inputs({"inputs": body}, {"s": SIGNATURE["s"]})
    assert found is not None
    assert [text.encode() for text in found[1]["s"].tolist()] == thorough["s"].tolist()


def test_the_first_of_equal_keys_counts_and_the_rest_of_the_body_is_ignored() -> None:
    assert json_text.parse(b'{"a": 1, "a": 2} {"a": 3}') == {"a": 1}
    assert json_text.parse_quickly(b'{"a": 1, "a": 2}') == {"a": 1}


def test_rows_and_columns_are_written_as_the_real_server_writes_them() -> None:
    scores = {"score": np.array([0.1, 2.0, 1 / 3], dtype=np.float32)}
    assert (
        json_tensors.response_body(scores, json_tensors.ROW) == '{\n    "predictions": [0.1, 2.0, 0.333333343\n    ]\n}'
    )
    assert (
        json_tensors.response_body(scores, json_tensors.COLUMNAR)
        == '{\n    "outputs": [\n        0.1,\n        2.0,\n        0.333333343\n    ]\n}'
    )
    two = {"a": np.array([1], dtype=np.int64), "b_bytes": np.array([b"\x01"], dtype=object)}
    assert json.loads(json_tensors.response_body(two, json_tensors.ROW)) == {
        "predictions": [{"a": 1, "b_bytes": {"b64": "AQ=="}}]
    }


decimals = st.builds(
    lambda digits, power, sign: sign * float(np.float32(f"{digits}e{power}")),
    st.integers(0, 10_000_001),
    st.integers(-14, 8),
    st.sampled_from([1, -1]),
)


@settings(deadline=None, max_examples=500)
@given(st.lists(st.floats(width=32) | decimals), st.sampled_from([np.float32, np.float64]))
def test_six_digits_are_written_where_they_read_back_the_same(numbers: list[float], dtype: type) -> None:
    array = np.array(numbers, dtype=dtype)
    for text, value in zip(json_tensors.float_texts(array), array.tolist(), strict=True):
        short = f"{value:.6g}"
        expected = short if dtype(short) == value else f"{value:.{9 if dtype is np.float32 else 17}g}"
        assert text in {expected, expected + ".0", "NaN", "Infinity", "-Infinity"}


@settings(deadline=None)
@given(st.lists(st.floats(width=32)))
def test_every_float_reads_back_the_same(numbers: list[float]) -> None:
    array = np.array(numbers, dtype=np.float32)
    for text, value in zip(json_tensors.float_texts(array), array.tolist(), strict=True):
        read = np.float32(json.loads(text))
        assert read == value or (math.isnan(read) and math.isnan(value))


def test_outputs_of_unequal_batch_size_are_refused_by_row() -> None:
    outputs = {"a": np.zeros(2, dtype=np.float32), "b": np.zeros(3, dtype=np.float32)}
    with pytest.raises(ServingError, match="inconsistent batch size: 3 expecting: 2"):
        json_tensors.response_body(outputs, json_tensors.ROW)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("QQ", b"A"),
            ("QQ==", b"A"),
            ("QQ..", b"A"),
            ("Q Q\n= =", b"A"),
            ("QUI=", b"AB"),
            ("QUJD", b"ABC"),
            ("", b""),
        ),
        *(
            (text, None)
            for text in ("Q", "QQ=", "QQ===", "QUJD=", "QUJD====", "=", "-_8=", "Q\u00a0Q", "QQ=A", "Q\u00e9")
        ),
    ],
)
def test_base64_is_read_as_strictly_as_the_real_server_reads_it(text: str, value: bytes | None) -> None:
    if value is not None:
        assert json_text.decode_base64({"b64": text}) == value
        return
    with pytest.raises(ServingError, match="Unable to base64 decode"):
        json_text.decode_base64({"b64": text})
