"""JSON as RapidJSON, the real server's parser and writer, has it.

Its dialect: `NaN`, `Inf` and `Infinity` are numbers; what follows the first value is ignored; of equal keys the first
counts. `parse_quickly` has orjson, and for some the standard library, read the well-formed body; `parse` below is the
whole dialect, slow, and names the offset of what is wrong.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

from serving.model_server.errors import invalid
from serving.model_server.grisu import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_DEPTH = 200
"""Deeper nesting is refused: parser and writers call themselves for each level."""
_MOST_QUOTED = 64
"""So many values of a body, objects and lists included, does the real server quote in an error."""
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(r"[ \n\r\t]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][+-]?[0-9]*)?")
_NO_DOCUMENT = frozenset({"", "\x00", "]", "}", ",", ":"})
"""With one of these at its start RapidJSON, which reads without calling itself, finds no document at all."""
_WORDS = {"null": None, "true": True, "false": False}
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ASCII_SPACE = re.compile(r"[ \t\n\v\f\r]")
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_SURROGATE_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_HIGH_SURROGATES, _LOW_SURROGATES = range(0xD800, 0xDC00), range(0xDC00, 0xE000)
_INT64_MIN, _INT64_MAX, _UINT64_MAX = -(2**63), 2**63 - 1, 2**64 - 1


def parse_quickly(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object that is `body`, or None where `parse` has to look.

    The parsers in C differ from RapidJSON in what they make of integers beyond 64 bits (float, or int) and of doubles'
    last bit: whoever meets one of these in the result must turn to `parse`.
    """
    try:
        value = orjson.loads(body)
    except ValueError:
        return _parse_not_finite(body)
    if not isinstance(value, dict):
        return None
    return value if _no_key_twice(body, value) else _parse_first_wins(body)


def _no_key_twice(body: bytes, value: dict[str, Any]) -> bool:
    """Tell whether `body` certainly has no equal keys in an object, of which orjson keeps the last.

    Each key is followed by a colon. As many colons as there are keys in the usual places: none is lost, nor is there
    any elsewhere, or within text.
    """
    keys = len(value)
    for member in value.values():
        if isinstance(member, dict):
            keys += len(member)
        elif isinstance(member, list) and member and isinstance(member[0], dict):
            keys += sum(len(row) for row in member if isinstance(row, dict))
    return body.count(b":") == keys


def _parse_not_finite(body: bytes) -> dict[str, Any] | None:
    """Read a body that orjson refuses if that can be for a NaN or an infinity, which the standard library takes."""
    if b"NaN" not in body and b"Infinity" not in body:
        return None
    if b"\\u" in body and _SURROGATE.search(_SURROGATE_PAIR.sub(b"", body)):
        return None
    return _parse_first_wins(body)


def _parse_first_wins(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(
            body.decode("utf-8"), object_pairs_hook=_first_wins, parse_float=_finite, parse_constant=_constant
        )
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object at the start of `body`.

    Integers that fit 64 bits are int, all other numbers float. Bytes that are no UTF-8 survive as surrogate escapes.

    Raises:
        ServingError: There is none; the message tells the offset in bytes.
    """
    if not body:
        msg = "JSON Parse error: The document is empty"
        raise invalid(msg)
    offset = 0
    for byte in _BOM:  # one by one: RapidJSON takes part of a mark, too
        offset += body[offset : offset + 1] == bytes([byte])
    value = _Parser(body[offset:].decode("utf-8", "surrogateescape"), offset).parse()
    if not isinstance(value, dict):
        msg = f"JSON Value: {pretty(value)} Is not object"
        raise invalid(msg)
    return value


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    members = {}
    for key, value in pairs:
        members.setdefault(key, value)
    return members


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        msg = f"{text[:20]} is too big"
        raise ValueError(msg)
    return number


def _constant(word: str) -> float:
    return float(word.replace("Infinity", "inf"))


class _Parser:
    """One pass over a text; `offset` is what was cut off before it, in bytes."""

    def __init__(self, text: str, offset: int) -> None:
        self._text = text
        self._offset = offset

    def parse(self) -> Any:  # noqa: ANN401 - any JSON value
        start = self._skip(0)
        if self._at(start) in _NO_DOCUMENT:
            self._fail("The document is empty.", start)
        return self._value(start, 0)[0]

    def _fail(self, message: str, place: int) -> NoReturn:
        offset = self._offset + len(self._text[:place].encode("utf-8", "surrogateescape"))
        msg = f"JSON Parse error: {message} at offset: {offset}"
        raise invalid(msg)

    def _skip(self, place: int) -> int:
        match = _SPACE.match(self._text, place)
        return match.end() if match else place

    def _at(self, place: int) -> str:
        return self._text[place : place + 1]

    def _consumed(self, place: int, word: str) -> int:
        """Return the place up to which the text is the same as `word`."""
        for letter in word:
            if self._at(place) != letter:
                break
            place += 1
        return place

    def _value(self, place: int, depth: int) -> tuple[Any, int]:
        if depth > MAX_DEPTH:
            self._fail(f"Nested deeper than {MAX_DEPTH} levels.", place)
        match self._at(place):
            case "{":
                return self._object(place, depth)
            case "[":
                return self._array(place, depth)
            case '"':
                return self._string(place)
        for word, value in _WORDS.items():
            if self._at(place) == word[0]:
                if self._text.startswith(word, place):
                    return value, place + len(word)
                self._fail("Invalid value.", self._consumed(place, word))
        return self._number(place)

    def _object(self, place: int, depth: int) -> tuple[dict[str, Any], int]:
        members: dict[str, Any] = {}
        place = self._skip(place + 1)
        if self._at(place) == "}":
            return members, place + 1
        while True:
            if self._at(place) != '"':
                self._fail("Missing a name for object member.", place)
            name, place = self._string(place)
            place = self._skip(place)
            if self._at(place) != ":":
                self._fail("Missing a colon after a name of object member.", place)
            value, place = self._value(self._skip(place + 1), depth + 1)
            members.setdefault(name, value)
            place = self._skip(place)
            match self._at(place):
                case ",":
                    place = self._skip(place + 1)
                case "}":
                    return members, place + 1
                case _:
                    self._fail("Missing a comma or '}' after an object member.", place)

    def _array(self, place: int, depth: int) -> tuple[list[Any], int]:
        elements: list[Any] = []
        place = self._skip(place + 1)
        if self._at(place) == "]":
            return elements, place + 1
        while True:
            value, place = self._value(place, depth + 1)
            elements.append(value)
            place = self._skip(place)
            match self._at(place):
                case ",":
                    place = self._skip(place + 1)
                case "]":
                    return elements, place + 1
                case _:
                    self._fail("Missing a comma or ']' after an array element.", place)

    def _string(self, start: int) -> tuple[str, int]:
        parts: list[str] = []
        place = start + 1
        while True:
            match = _PLAIN.match(self._text, place)
            end = match.end() if match else place
            parts.append(self._text[place:end])
            match self._at(end):
                case '"':
                    return "".join(parts), end + 1
                case "\\":
                    part, place = self._escape(end)
                    parts.append(part)
                case "" | "\x00":
                    self._fail("Missing a closing quotation mark in string.", end)
                case _:
                    self._fail("Invalid escape character in string.", end)

    def _escape(self, place: int) -> tuple[str, int]:
        letter = self._at(place + 1)
        if letter in _ESCAPES and letter:
            return _ESCAPES[letter], place + 2
        if letter != "u":
            self._fail("Invalid escape character in string.", place)
        code = self._hex(place + 2, place)
        if code in _LOW_SURROGATES:  # taken as it is, in bytes that are no UTF-8
            return chr(code).encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"), place + 6
        if code not in _HIGH_SURROGATES:
            return chr(code), place + 6
        if self._text[place + 6 : place + 8] != "\\u":
            self._fail("The surrogate pair in string is invalid.", place)
        low = self._hex(place + 8, place)
        if low not in _LOW_SURROGATES:
            self._fail("The surrogate pair in string is invalid.", place)
        return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)), place + 12

    def _hex(self, place: int, escape: int) -> int:
        match = _HEX.match(self._text, place)
        if match is None:
            self._fail("Incorrect hex digit after \\u escape in string.", escape)
        return int(match.group(), 16)

    def _number(self, place: int) -> tuple[int | float, int]:
        sign = 1 if self._at(place) == "-" else 0
        if self._at(place + sign) in {"N", "I"}:
            number, end = self._not_finite(place + sign)
            return (-number if sign else number), end
        match = _NUMBER.match(self._text, place)
        if match is None or match.group(2) is None:
            self._fail("Invalid value.", place + sign)
        _, whole, fraction, exponent = match.groups()
        if fraction == ".":
            self._fail("Miss fraction part in number.", match.start(3) + 1)
        if exponent is not None and not exponent[-1].isdigit():
            self._fail("Miss exponent in number.", match.end(4))
        if fraction is None and exponent is None:
            integer = int(match.group()) if len(whole) < 25 else None  # noqa: PLR2004 - longer than any 64-bit integer
            if integer is not None and _INT64_MIN <= integer <= _UINT64_MAX:
                return integer, match.end()
        value = _rapid_double(
            whole, (fraction or ".")[1:], (exponent or "e0")[1:], largest=_INT64_MAX if sign else _UINT64_MAX
        )
        if value is None:
            self._fail("Number too big to be stored in double.", place)
        return (-value if sign else value), match.end()

    def _not_finite(self, place: int) -> tuple[float, int]:
        end = self._consumed(place, "NaN")
        if end == place + len("NaN"):
            return math.nan, end
        start, end = end, self._consumed(end, "Inf")  # from there, not from `place`: RapidJSON takes NaInf, too
        if end != start + len("Inf"):
            self._fail("Invalid value.", end)
        if self._at(end) == "i":
            start, end = end, self._consumed(end, "inity")
            if end != start + len("inity"):
                self._fail("Invalid value.", end)
        return math.inf, end


_SIGNIFICAND_MAX, _SIGNIFICANT_DIGITS = 2**53 - 1, 17
_POWERS = tuple(float(f"1e{exponent}") for exponent in range(309))
_LARGEST_POWER = len(_POWERS) - 1
_TENTH_OF_LARGEST = 1.7976931348623157e307
_LONGEST_EXPONENT = 10
_LONGEST_INTEGER = 21
"""Digits that no 64-bit integer has."""


def _rapid_double(whole: str, fraction: str, exponent: str, *, largest: int) -> float | None:
    """Return the double that RapidJSON reads, which may differ from the nearest in the last bit; None if too big.

    It gathers the digits in an integer as long as they fit (`largest` for those before the point), then in a double,
    and multiplies or divides once by a power of ten. Too big are many digits or a great exponent; a product of the two
    that no double holds is an infinity.
    """
    significand, double = _whole_part(whole, largest)
    if double is not None and math.isinf(double):
        return None
    count = len(whole) - 1 if double is None else _SIGNIFICANT_DIGITS  # the first digit is not counted
    value, shift = _with_fraction(fraction, significand, double, count)
    power = _exponent(exponent)
    if power > _LARGEST_POWER - shift:
        return None
    power += shift
    if power < -_LARGEST_POWER:
        value, power = value / _POWERS[-1], power + _LARGEST_POWER
    if power < -_LARGEST_POWER:
        return 0.0
    return value * _POWERS[power] if power >= 0 else value / _POWERS[-power]


def _whole_part(digits: str, largest: int) -> tuple[int, float | None]:
    """Return the digits before the point as an integer or, beyond `largest`, as a double, infinity if too many."""
    significand = int(digits[:_LONGEST_INTEGER])
    if len(digits) < _LONGEST_INTEGER and significand <= largest:
        return significand, None
    fitting = next(
        length for length in range(len(digits), 0, -1) if length < _LONGEST_INTEGER and int(digits[:length]) <= largest
    )
    double = float(int(digits[:fitting]))
    for digit in digits[fitting:]:
        if double >= _TENTH_OF_LARGEST:
            return 0, math.inf
        double = double * 10.0 + int(digit)
    return 0, double


def _with_fraction(digits: str, significand: int, double: float | None, count: int) -> tuple[float, int]:
    """Append the digits after the point; return the value and by how many digits it was shifted."""
    shift = 0
    for digit in map(int, digits):
        if double is None and significand > _SIGNIFICAND_MAX:
            double = float(significand)
        if double is None:
            significand = significand * 10 + digit
            count += significand != 0
        elif count < _SIGNIFICANT_DIGITS:
            double = double * 10.0 + digit
            count += double > 0
        else:
            break
        shift -= 1
    return float(significand) if double is None else double, shift


def _exponent(text: str) -> int:
    """Return the number; one too long to matter is cut, so that a megabyte of digits costs nothing."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    digits = digits.lstrip("0")
    return sign * int(digits[:_LONGEST_EXPONENT] or "0")


_TYPE_NAMES = {type(None): "Null", dict: "Object", list: "Array", str: "String"}


def type_name(value: object) -> str:
    """Return RapidJSON's name of a value's type."""
    if isinstance(value, bool):
        return str(value)
    return _TYPE_NAMES.get(type(value), "Number")


def is_base64_object(value: object) -> bool:
    """Tell whether `value` is `{"b64": "<text>"}` and nothing more."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(value: Any) -> bytes:  # noqa: ANN401 - a base64 object
    """Return the bytes of a base64 object.

    Raises:
        ServingError: Its text is no base64 of the plain alphabet. White space is skipped; the padding may be left out,
            or be dots, but not be of another length.
    """
    text = _ASCII_SPACE.sub("", value["b64"])
    data = text.rstrip("=.")
    missing = -len(data) % 4
    try:
        if len(text) - len(data) not in {0, missing}:
            raise binascii.Error  # noqa: TRY301 - all that is wrong ends in one message
        return base64.b64decode(data + "=" * missing, validate=True)
    except (binascii.Error, ValueError):
        msg = "Unable to base64 decode"
        raise invalid(msg) from None


_ESCAPED = {**{chr(code): f"\\u{code:04X}" for code in range(0x20)}, '"': '\\"', "\\": "\\\\"} | {
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}
_MUST_ESCAPE = re.compile(r'["\\\x00-\x1f]')


def quoted(text: str) -> str:
    """Write a string; only quotes, backslashes and control characters are escaped."""
    return '"' + _MUST_ESCAPE.sub(lambda match: _ESCAPED[match.group()], text) + '"'


def indent(depth: int) -> str:
    """Return the line break and the indentation of a nesting depth."""
    return "\n" + "    " * depth


def array_text(items: Sequence[str], depth: int, *, single_line: bool) -> str:
    """Write an array at `depth` from its written elements."""
    if not items:
        return "[]"
    if single_line:
        return "[" + ", ".join(items) + "]"
    inner = indent(depth + 1)
    return "[" + inner + ("," + inner).join(items) + indent(depth) + "]"


def object_text(members: Iterable[tuple[str, str]], depth: int) -> str:
    """Write an object at `depth` from names and written values."""
    inner = indent(depth + 1)
    written = [f"{quoted(name)}: {value}" for name, value in members]
    return "{" + inner + ("," + inner).join(written) + indent(depth) + "}" if written else "{}"


_LITERALS = {None: "null", True: "true", False: "false"}


def pretty(value: object) -> str:
    """Write any JSON value as the real server quotes it in errors: arrays on one line, objects over several.

    Like there, the text breaks off, brackets left open, after so many values, and before a NaN or an infinity, which
    RapidJSON's writer refuses.
    """
    quotation = _Quotation()
    quotation.write(value, 0)
    return "".join(quotation.parts)


class _Quotation:
    """A value being written in `parts`; each method tells whether to go on."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._left = _MOST_QUOTED

    def write(self, value: object, depth: int, before: str = "") -> bool:
        if not self._left:
            return False
        self._left -= 1
        self.parts.append(before)
        if isinstance(value, dict):
            return self._object(value, depth)
        if isinstance(value, list):
            return self._array(value, depth)
        self.parts.append(_scalar_text(value))
        return self.parts[-1] != ""

    def _object(self, members: dict[str, object], depth: int) -> bool:
        self.parts.append("{")
        for place, (name, member) in enumerate(members.items()):
            if not self.write(member, depth + 1, f"{',' if place else ''}{indent(depth + 1)}{quoted(name)}: "):
                return False
        self.parts.append(indent(depth) + "}" if members else "}")
        return True

    def _array(self, elements: list[object], depth: int) -> bool:
        self.parts.append("[")
        for place, element in enumerate(elements):
            if not self.write(element, depth + 1, ", " if place else ""):
                return False
        self.parts.append("]")
        return True


def _scalar_text(value: object) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float):
        return double_text(value)
    if isinstance(value, bool) or value is None:
        return _LITERALS[value]
    return str(value)


_SMALLEST_PLAIN_POINT, _LARGEST_PLAIN_POINT = -6, 21
"""Where the decimal point may lie, counted from the first digit, for a double to be written without an exponent."""


def double_text(value: float) -> str:
    """Write a double as RapidJSON does: digits that read back the same; nothing for NaN and infinities."""
    if math.isnan(value) or math.isinf(value):
        return ""
    sign = math.copysign(1.0, value) < 0
    digits, exponent = shortened(abs(value))
    minus = "-" if sign else ""
    point = len(digits) + exponent
    if digits == "0":
        return f"{minus}0.0"
    if 0 < point <= _LARGEST_PLAIN_POINT:
        padded = digits.ljust(point, "0")
        return f"{minus}{padded[:point]}.{padded[point:] or '0'}"
    if _SMALLEST_PLAIN_POINT < point <= 0:
        return f"{minus}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{minus}{digits[0]}{fraction}e{point - 1}"
