"""One declaration per column, from which every engine's types are derived by that plane's adapter module.

Spark's StructType, Feast's Field, Arrow's schema and Keras's Input are all made from these; none is written by hand.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_HASH_LENGTH = 8
FLOAT32_ERROR = 2.0**-22
"""How far a FLOAT32 may be from the number that was meant, relative to it."""


def float32(number: float) -> float:
    """Return the FLOAT32 that is nearest to a number: what a stored value is compared with, lest 0.7 be less than 0.7.

    Raises:
        OverflowError: No FLOAT32 is near it.
    """
    nearest: float = struct.unpack("<f", struct.pack("<f", number))[0]
    return nearest


class Dtype(StrEnum):
    """The value types that every engine here has."""

    STRING = "string"
    INT64 = "int64"
    FLOAT32 = "float32"
    TIMESTAMP = "timestamp"
    """Microseconds since 1970 in UTC."""
    BYTES = "bytes"
    """What another part has encoded; in files only, never a feature."""


class Encoding(StrEnum):
    """How the model's graph turns the raw value into numbers. Parameters are fitted on train rows, shipped as data.

    A missing value becomes 0, and where numbers come out of it, a flag beside them says so.
    """

    NONE = "none"
    VOCABULARY = "vocabulary"
    """Index into `Column.vocabulary`: 0 is missing or padding, 1 is out of vocabulary, the first term is 2.

    With more than one of `Column.buckets`, terms out of the vocabulary are told apart by their hash: the first bucket
    is 1, the others follow the last term."""
    HASHED = "hashed"
    """Index without a vocabulary: 0 is missing or padding, 1 is never met, `Column.buckets` hash values begin at 2."""
    ONE_HOT = "one_hot"
    """A 1 at the place of the term's index into `Column.vocabulary`, as for VOCABULARY; all 0 where it is missing."""
    MULTI_HOT = "multi_hot"
    """The same for a list of terms: a 1 at the place of each."""
    STANDARD = "standard"
    """(x - mean) / std over train rows."""
    MIN_MAX = "min_max"
    """(x - min) / (max - min) over train rows, cut to 0 and 1."""
    ROBUST = "robust"
    """(x - median) / interquartile range over train rows: wild values do not move it."""
    QUANTILES = "quantiles"
    """Index of the bucket that the value falls into, of `Column.buckets` that hold equally many train rows: 0 is
    missing, 1 is never met, 2 is the lowest."""
    NORM = "norm"
    """A list of numbers divided by its p-norm, p being `Column.norm`."""


class Curve(StrEnum):
    """What is applied to a number before its encoding."""

    LINEAR = "linear"
    LOG = "log"
    """log(1 + x); a negative number counts as 0."""
    SQRT = "sqrt"
    """The square root; a negative number counts as 0."""
    SQUARE = "square"


TERM_ENCODINGS = frozenset({Encoding.VOCABULARY, Encoding.ONE_HOT, Encoding.MULTI_HOT})
"""Those that look terms up in a vocabulary."""
SCALE_ENCODINGS = frozenset({Encoding.STANDARD, Encoding.MIN_MAX, Encoding.ROBUST})
"""Those that move and stretch a number."""
NUMBER_ENCODINGS = SCALE_ENCODINGS | {Encoding.QUANTILES}
"""Those that a single number can have."""
_ANY_NUMBER_ENCODINGS = NUMBER_ENCODINGS | {Encoding.NORM}
_LIST_ENCODINGS = frozenset({Encoding.MULTI_HOT, Encoding.NORM})
_SCALAR_ENCODINGS = NUMBER_ENCODINGS | {Encoding.ONE_HOT}


_LEAST_BUCKETS = {Encoding.HASHED: 1, Encoding.QUANTILES: 2}

Scalar = str | int | float


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, type and meaning.

    `length` is 0 for a scalar, n for a list of exactly n values (padded with `missing`), and -1 for a list of any
    length. `missing` stands for "no value" wherever null cannot travel: in the model's inputs and in JSON.
    `revision` is raised by whoever changes how the values are computed; a changed definition is another column.
    """

    name: str
    dtype: Dtype
    meaning: str
    length: int = 0
    nullable: bool = False
    missing: Scalar | None = None
    encoding: Encoding = Encoding.NONE
    vocabulary: str = ""
    curve: Curve = Curve.LINEAR
    buckets: int = 0
    """Of VOCABULARY: how many indices terms out of it share, 0 and 1 being one; of HASHED and QUANTILES: how many."""
    norm: float = 0.0
    """Of NORM: 1, 2, or infinity."""
    revision: int = 1
    window: str = ""
    """What the value looks back on, for people; empty: what its feature group does."""

    def __post_init__(self) -> None:
        """Refuse a declaration that makes no sense, where it is made."""
        if not _NAME.fullmatch(self.name):
            msg = f"column name {self.name!r}: expected lower case letters, digits and underscores"
            raise ValueError(msg)
        if self.length < -1:
            msg = f"column {self.name}: length is 0 (scalar), n (fixed) or -1 (any), received {self.length}"
            raise ValueError(msg)
        self._check_encoding()
        if self.missing is not None and isinstance(self.missing, str) != (self.dtype is Dtype.STRING):
            msg = f"column {self.name}: missing={self.missing!r} is not a {self.dtype}"
            raise ValueError(msg)

    def _check_encoding(self) -> None:
        """Refuse an encoding that the column's type, shape or parameters do not fit."""
        encoding = self.encoding
        faults = {
            f"a vocabulary is named if, and only if, the encoding looks terms up, received {self.vocabulary!r}": (
                encoding in TERM_ENCODINGS
            )
            != bool(self.vocabulary),
            f"it needs strings, the column is {self.dtype}": encoding in TERM_ENCODINGS | {Encoding.HASHED}
            and self.dtype is not Dtype.STRING,
            f"it needs numbers, the column is {self.dtype}": encoding in _ANY_NUMBER_ENCODINGS
            and self.dtype not in {Dtype.INT64, Dtype.FLOAT32},
            f"it needs one value, the column's length is {self.length}": encoding in _SCALAR_ENCODINGS
            and self.length != 0,
            f"it needs a list of fixed length, the column's length is {self.length}": encoding in _LIST_ENCODINGS
            and self.length < 1,
            f"it takes no curve, received {self.curve}": self.curve is not Curve.LINEAR
            and encoding not in NUMBER_ENCODINGS,
            f"it needs at least {(least := _LEAST_BUCKETS.get(encoding, 0))} buckets, received {self.buckets}": (
                self.buckets < least
            ),
            f"it takes no buckets, received {self.buckets}": self.buckets != 0
            and encoding not in TERM_ENCODINGS | _LEAST_BUCKETS.keys(),
            f"a norm of 1, 2 or infinity, and no other encoding has one, received {self.norm}": (
                self.norm in {1.0, 2.0, math.inf}
            )
            != (encoding is Encoding.NORM),
        }
        for fault, is_there in faults.items():
            if is_there:
                msg = f"column {self.name}, encoding {encoding}: {fault}"
                raise ValueError(msg)

    @property
    def encoding_definition(self) -> dict[str, object]:
        """Whatever, if changed, changes the encoded values of the same raw ones, apart from what is fitted."""
        declared = {
            "encoding": self.encoding.value,
            "curve": self.curve.value if self.curve is not Curve.LINEAR else "",
            "vocabulary": self.vocabulary,
            "buckets": self.buckets,
            "norm": str(self.norm) if self.norm else "",
        }
        return {name: value for name, value in declared.items() if value}

    @property
    def blank(self) -> Scalar | list[Scalar] | None:
        """What stands for "no value": `missing`, as often as a list of fixed length needs it."""
        return [self.missing] * max(self.length, 0) if self.length and self.missing is not None else self.missing

    @property
    def definition(self) -> dict[str, object]:
        """Whatever, if changed, changes the values. Meaning and encoding do not: the stored values stay the same."""
        return {
            "name": self.name,
            "dtype": self.dtype.value,
            "length": self.length,
            "missing": self.missing,
            "revision": self.revision,
        }


def definition_hash(definition: Mapping[str, object]) -> str:
    """Return eight hexadecimal digits that change when `definition` does."""
    canonical = json.dumps(definition, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:_HASH_LENGTH]


def check_distinct(what: str, names: Iterable[str]) -> None:
    """Refuse names that stand for two things; ValueError says which."""
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        msg = f"{what}: expected different names, received {', '.join(map(repr, repeated))} more than once"
        raise ValueError(msg)


def vocabularies(columns: Iterable[Column]) -> dict[str, list[Column]]:
    """Return vocabulary → the columns that share it, by name; ValueError where these differ in their buckets."""
    sharing: dict[str, list[Column]] = {}
    for column in columns:
        if column.vocabulary:
            sharing.setdefault(column.vocabulary, []).append(column)
    for name, members in sharing.items():
        buckets = {column.name: column.buckets for column in members}
        if len(set(buckets.values())) > 1:
            msg = f"vocabulary {name}: expected the same number of buckets in all of its columns, received {buckets}"
            raise ValueError(msg)
    return dict(sorted(sharing.items()))
