"""A given split as the peers' libraries take it: terms as numbers from 0, of the train rows alone.

It reads what `models.benchmark.given_split` writes of, and imports nothing of this project: the peers' environment has
none of what the planes need.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import yaml

if TYPE_CHECKING:
    from pathlib import Path

TRAIN, VALID, TEST = "train", "valid", "test"
SPLITS = (TRAIN, VALID, TEST)
MISSING, UNKNOWN = 0, 1
"""Numbers of terms: of what is not there, and of what the train rows do not have."""


@dataclass(frozen=True)
class Field:
    """One field of the rows."""

    name: str
    kind: str
    """"categorical", "numeric" or "sequence"."""
    size: int
    """How many numbers its terms have; 0 of a numeric field."""
    length: int
    """Of a sequence, the longest of any split; else 0."""
    shares: str
    """The field with whose vectors it goes; empty where it has its own."""
    is_users: bool
    """Whether it describes the user."""


@dataclass(frozen=True)
class Rows:
    """A given split in memory."""

    fields: tuple[Field, ...]
    columns: dict[str, dict[str, Any]]
    """Split → field → int64 `[rows]`, or `[rows, length]` with the oldest first in a history; float32 of numbers."""
    labels: dict[str, Any]
    """Split → float32 `[rows]`: 0 or 1."""
    tables: dict[str, Any]
    """Split → the rows as they stand in the file, a pyarrow.Table."""
    label: str
    """The column of labels."""

    def of(self, kind: str) -> list[Field]:
        """Return the fields of a kind, in their order."""
        return [field for field in self.fields if field.kind == kind]


def read_rows(folder: Path) -> Rows:
    """Read `dataset.yaml` and the three Parquet files of a folder."""
    declared = yaml.safe_load((folder / "dataset.yaml").read_text(encoding="utf-8"))
    tables = {split: pq.read_table(folder / f"{split}.parquet", partitioning=None) for split in SPLITS}
    columns: dict[str, dict[str, Any]] = {split: {} for split in SPLITS}
    vocabularies = _vocabularies(declared["fields"], tables[TRAIN])
    fields = []
    for each in declared["fields"]:
        name, kind, shares = each["name"], each["type"], each.get("shares") or ""
        values = {split: tables[split][name].to_pylist() for split in SPLITS}
        if kind == "numeric":
            found, length = _numbers(values), 0
        else:
            length = _longest(values) if kind == "sequence" else 0
            found = {
                split: _coded(values[split], vocabularies[shares or name], length, turned=bool(shares))
                for split in SPLITS
            }
        for split in SPLITS:
            columns[split][name] = found[split]
        size = 0 if kind == "numeric" else len(vocabularies[shares or name]) + UNKNOWN + 1
        is_users = (each.get("of") or ("user" if name.lower().startswith("user") else "item")) == "user"
        fields.append(Field(name, kind, size, length, shares, is_users))
    label = declared["label"]
    labels = {split: np.asarray(tables[split][label].to_numpy(), np.float32) for split in SPLITS}
    return Rows(tuple(fields), columns, labels, tables, label)


def _vocabularies(declared: list[dict[str, Any]], train: Any) -> dict[str, dict[str, int]]:
    """Return field → term → its number from 2, the most frequent first; what shares terms is counted together."""
    counts: dict[str, Counter[str]] = {}
    for each in declared:
        if each["type"] != "numeric":
            values = train[each["name"]].to_pylist()
            terms = (term for row in values for term in row or ()) if each["type"] == "sequence" else iter(values)
            counts.setdefault(each.get("shares") or each["name"], Counter()).update(term for term in terms if term)
    return {
        name: {
            term: place + UNKNOWN + 1
            for place, (term, _) in enumerate(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))
        }
        for name, found in counts.items()
    }


def _longest(values: dict[str, list[Any]]) -> int:
    return max(1, *(len([term for term in row or () if term]) for rows in values.values() for row in rows))


def _coded(values: list[Any], numbers: dict[str, int], length: int, *, turned: bool) -> Any:
    """Return int64 `[rows]`, or `[rows, length]`, in the other order where it is turned; what is missing is last."""
    if not length:
        return np.array([numbers.get(term, UNKNOWN) if term else MISSING for term in values], np.int64)
    found = np.full((len(values), length), MISSING, np.int64)
    for row, terms in enumerate(values):
        there = [numbers.get(term, UNKNOWN) for term in terms or () if term]
        found[row, : len(there)] = there[::-1] if turned else there
    return found


def _numbers(values: dict[str, list[Any]]) -> dict[str, Any]:
    """Return float32 `[rows]` of each split, by the train rows' mean and deviation; what is missing is the mean."""
    found = {split: np.array([np.nan if each is None else each for each in values[split]]) for split in SPLITS}
    known = found[TRAIN][~np.isnan(found[TRAIN])]
    mean, spread = (known.mean(), known.std() or 1.0) if len(known) else (0.0, 1.0)
    return {split: np.nan_to_num((each - mean) / spread).astype(np.float32) for split, each in found.items()}
