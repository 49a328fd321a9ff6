"""One declaration per column, from which every engine's types are derived by that plane's adapter module.

Spark's StructType, Feast's Field, Arrow's schema and Keras's Input are all made from these; none is written by hand.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_HASH_LENGTH = 8


class Dtype(StrEnum):
    """The value types that every engine here has."""

    STRING = "string"
    INT64 = "int64"
    FLOAT32 = "float32"
    TIMESTAMP = "timestamp"
    """Microseconds since 1970 in UTC."""


class Encoding(StrEnum):
    """How the model's graph turns the raw value into numbers. Parameters are fitted on train rows, shipped as data."""

    NONE = "none"
    VOCABULARY = "vocabulary"
    """Index into `Column.vocabulary`: 0 is missing or padding, 1 is out of vocabulary."""
    STANDARD = "standard"
    """(x - mean) / std over train rows where the value is not missing; a missing value becomes 0."""
    LOG_STANDARD = "log_standard"
    """log(1 + x), then STANDARD."""


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
    revision: int = 1

    def __post_init__(self) -> None:
        """Refuse a declaration that makes no sense, where it is made."""
        if not _NAME.fullmatch(self.name):
            msg = f"column name {self.name!r}: expected lower case letters, digits and underscores"
            raise ValueError(msg)
        if self.length < -1:
            msg = f"column {self.name}: length is 0 (scalar), n (fixed) or -1 (any), received {self.length}"
            raise ValueError(msg)
        if (self.encoding is Encoding.VOCABULARY) != bool(self.vocabulary):
            msg = f"column {self.name}: a vocabulary is named if, and only if, the encoding is 'vocabulary'"
            raise ValueError(msg)
        if self.encoding is Encoding.VOCABULARY and self.dtype is not Dtype.STRING:
            msg = f"column {self.name}: a vocabulary holds strings, the column is {self.dtype}"
            raise ValueError(msg)
        numeric = self.dtype in {Dtype.INT64, Dtype.FLOAT32}
        if self.encoding in {Encoding.STANDARD, Encoding.LOG_STANDARD} and not numeric:
            msg = f"column {self.name}: {self.encoding} needs numbers, the column is {self.dtype}"
            raise ValueError(msg)
        if self.missing is not None and isinstance(self.missing, str) != (self.dtype is Dtype.STRING):
            msg = f"column {self.name}: missing={self.missing!r} is not a {self.dtype}"
            raise ValueError(msg)

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
