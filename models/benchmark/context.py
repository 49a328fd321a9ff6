"""Random folds of a context table: who, what, and what the source says of both; nothing of behaviour.

The rows are those of a training set, whenever they happened: with its labels, and what was drawn where users only show
what they like. Each row is tested in one fold, and in the fold after it, it validates.

Folds at random know the future of every user. They say which model fits such a table best, as most published figures
do, and nothing of how good one will be tomorrow.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.contracts.columns import Dtype
from feature_repo.contracts.datasets import ITEM_ID, LABEL, USER_ID
from feature_repo.contracts.features import declared
from feature_repo.contracts.manifests import TrainingSet
from feature_repo.contracts.places import MANIFEST
from feature_repo.contracts.publishing import CorruptRecordError
from feature_repo.contracts.schemas import Schema
from models.benchmark.given_split import DeclaredField, GivenDataset, given_split
from models.dataset import TEST, TRAIN, VALID
from models.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from feature_repo.contracts.columns import Column
    from models.benchmark.given_split import GivenSplit

FOLDS = 10
_SEED = 20
"""Of the folds: they are the same for every model and seed."""
_MOST_TERMS = 256
"""A numeric attribute of no more distinct values is one of terms, as an age or a year; one of more is a number."""


@dataclass(frozen=True, slots=True)
class ContextTable:
    """All rows, and what their columns are."""

    declared: GivenDataset
    rows: pa.Table
    sha256: str
    """Of the training set's rows, and of how they are folded."""

    @property
    def tested_in(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """`[rows]`: the fold, from 1, in which each row is tested."""
        return np.random.default_rng(_SEED).permutation(len(self.rows)) % FOLDS + 1

    def fold(self, number: int) -> GivenSplit:
        """Return a fold, `number` from 1: its tenth of the rows to test, the tenth before it to validate.

        Raises:
            DatasetError: Fewer rows than folds.
        """
        return given_split(self.declared, self.tables(number))

    def tables(self, number: int) -> dict[str, pa.Table]:
        """Return the rows of a fold as they are: TRAIN, VALID and TEST → label and fields.

        Raises:
            DatasetError: Fewer rows than folds.
        """
        if len(self.rows) < FOLDS:
            msg = f"context table: expected {FOLDS} rows or more, one for each fold, received {len(self.rows)}"
            raise DatasetError(msg)
        tested, validates = self.tested_in, (number - 2) % FOLDS + 1
        chosen = {TEST: tested == number, VALID: tested == validates}
        chosen[TRAIN] = ~(chosen[TEST] | chosen[VALID])
        return {split: self.rows.filter(pa.array(mask)) for split, mask in chosen.items()}


def read_context(training_set: Path) -> ContextTable:
    """Read the rows of a training set, and what the source says of their users and items.

    Raises:
        DatasetError: The folder is no training set.
    """
    try:
        record = TrainingSet.read(training_set / MANIFEST)
        features = declared(Schema.from_json(record.schema))
        described: list[tuple[Column, Literal["user", "item"]]] = [(USER_ID, "user"), (ITEM_ID, "item")]
        described += [(each, "user") for each in (features.user_profile.features if features.user_profile else ())]
        described += [(each, "item") for each in (features.item_profile.features if features.item_profile else ())]
        names = [LABEL.name, *(column.name for column, _ in described)]
        rows = pa.concat_tables(
            pq.read_table(training_set / f"{split}.parquet", columns=names, partitioning=None)
            for split in (TRAIN, VALID, TEST)
        )
    except (CorruptRecordError, OSError, pa.ArrowException) as error:
        msg = f"{training_set}: expected a training set of kind ranking, received {error}; build it again"
        raise DatasetError(msg) from error
    fields = []
    for column, owner in described:
        field = _field(column, rows[column.name], owner)
        fields.append(field)
        place = rows.column_names.index(column.name)
        rows = rows.set_column(place, column.name, _as_read(rows[column.name], field))
    label = rows.column_names.index(LABEL.name)
    rows = rows.set_column(label, LABEL.name, rows[LABEL.name].cast(pa.float64()))
    whole = f"{record.training_set_id} {sorted(record.checksums.items())} {names} {FOLDS} {_SEED}"
    digest = hashlib.sha256(whole.encode()).hexdigest()
    return ContextTable(GivenDataset(label=LABEL.name, group=USER_ID.name, fields=tuple(fields)), rows, digest)


def _field(column: Column, values: pa.ChunkedArray, owner: Literal["user", "item"]) -> DeclaredField:
    if column.length:
        return DeclaredField(name=column.name, type="sequence", of=owner)
    is_number = column.dtype is not Dtype.STRING and pc.count_distinct(values).as_py() > _MOST_TERMS
    return DeclaredField(name=column.name, type="numeric" if is_number else "categorical", of=owner)


def _as_read(values: pa.ChunkedArray, field: DeclaredField) -> pa.ChunkedArray:
    """Return a column as the field's kind is read from a file."""
    kinds = {"numeric": pa.float64(), "categorical": pa.string(), "sequence": pa.list_(pa.string())}
    if field.type != "sequence" and pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return values.cast(kinds[field.type])
