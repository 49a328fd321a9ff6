"""A given split: rows of fields that somebody has divided into train, valid and test.

    dataset.yaml    label: clicked
                    group: user                            # whose rows GAUC compares; may be left out
                    fields:
                      - {name: user, type: categorical, of: user}
                      - {name: item, type: categorical}
                      - {name: seen, type: sequence, shares: item, of: user}
                      - {name: user_age, type: numeric}
    train.csv, valid.csv, test.csv, or the same as Parquet

A field is the user's where it says `of: user`, or where its name begins with `user`; else the item's. A CSV file has a
header; the terms of a sequence are separated by spaces there. An empty cell and a null are missing.
Vocabularies, means and deviations are those of the train rows.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_repo.contracts.columns import Column, Dtype, Encoding
from feature_repo.contracts.objectives import PROBABILITY
from feature_repo.contracts.publishing import replacing
from feature_repo.contracts.signatures import RANKING_MODEL, SCORE, ModelInput, Scope, Signature
from models.dataset import TEST, TRAIN, VALID, Split
from models.declared import read_declared
from models.errors import DatasetError
from models.inputs import from_arrow
from models.transforms import LIMIT, Scaling, Transforms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

DECLARATION = "dataset.yaml"
_EXAMPLE = Path(__file__).parent / DECLARATION
_STRICT = ConfigDict(frozen=True, extra="forbid")
_LARGEST = 1e30
_MISSING_NUMBER = -_LARGEST
"""No field has it: what is missing has to be a number on its way into the graph."""


class DeclaredField(BaseModel):
    """One field of the rows."""

    model_config = _STRICT

    name: str = Field(min_length=1)
    """The column's, in every file."""
    type: Literal["categorical", "numeric", "sequence"]
    shares: str = ""
    """The field whose terms this one's are: both have one table of vectors."""
    of: Literal["user", "item"] | None = None
    """Whom it describes, for models that tell the two apart; None where the name says so (`scope`)."""

    @property
    def scope(self) -> Scope:
        """Whom it describes: the user where nothing is said and the name begins with `user`."""
        said = self.of or ("user" if self.name.lower().startswith("user") else "item")
        return Scope(said)


class GivenDataset(BaseModel):
    """What stands in a given split's `dataset.yaml`."""

    model_config = _STRICT

    label: str = Field(min_length=1)
    """The column of 0 and 1."""
    group: str = ""
    """The field whose terms say which rows GAUC compares."""
    fields: tuple[DeclaredField, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_known(self) -> GivenDataset:
        kinds = {field.name: field.type for field in self.fields}
        if len(kinds) < len(self.fields) or self.label in kinds:
            msg = f"fields and label: expected a name of its own for each, received {[f.name for f in self.fields]}"
            raise ValueError(msg)
        for field in self.fields:
            if field.shares and (field.type == "numeric" or kinds.get(field.shares, "numeric") == "numeric"):
                msg = f"field {field.name}: shares {field.shares!r}: expected terms that share those of another field"
                raise ValueError(msg)
        if self.group and kinds.get(self.group) != "categorical":
            msg = f"group {self.group!r}: expected the name of a categorical field"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class GivenSplit:
    """A given split in memory, as `fit` takes it."""

    signature: Signature
    transforms: Transforms
    splits: Mapping[str, Split]
    has_groups: bool
    """Whether the users of the splits are groups that mean something."""

    def __getitem__(self, name: str) -> Split:
        """Return TRAIN, VALID or TEST."""
        return self.splits[name]


def read_given_split(folder: Path) -> GivenSplit:
    """Read a folder.

    Raises:
        DatasetError: `dataset.yaml` or a file is missing or says something else; the message names it.
    """
    declared = read_declared(GivenDataset, folder / DECLARATION, _EXAMPLE, DatasetError)
    return given_split(declared, {name: _read(folder, name, declared) for name in (TRAIN, VALID, TEST)})


def write_given_split(declared: GivenDataset, tables: Mapping[str, pa.Table], folder: Path) -> None:
    """Write a folder that `read_given_split` reads, whole: TRAIN, VALID and TEST → label and fields."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, table in tables.items():
        with replacing(folder / f"{split}.parquet") as part:
            pq.write_table(table, part)
    with replacing(folder / DECLARATION) as part:
        text = yaml.safe_dump(declared.model_dump(mode="json", exclude_none=True), sort_keys=False)
        part.write_text(text, encoding="utf-8")


def given_split(declared: GivenDataset, tables: Mapping[str, pa.Table]) -> GivenSplit:
    """Return rows in memory as `fit` takes them.

    Args:
        declared: What the columns are.
        tables: TRAIN, VALID and TEST → label and fields: numbers, text, and lists of text.

    Raises:
        DatasetError: A label is neither 0 nor 1.
    """
    names = _column_names(declared)
    signature = Signature(RANKING_MODEL, _inputs(declared, names, tables), SCORE, PROBABILITY)
    columns = {column.name: column for column in signature.input_columns}
    features = {
        split: {
            names[field.name]: from_arrow(table[field.name], columns[names[field.name]]) for field in declared.fields
        }
        for split, table in tables.items()
    }
    splits = {split: _split(split, table, declared, features[split]) for split, table in tables.items()}
    return GivenSplit(signature, _fitted(signature, features[TRAIN]), splits, has_groups=bool(declared.group))


def _read(folder: Path, name: str, declared: GivenDataset) -> pa.Table:
    """Return a split's columns, as types that the fields have."""
    parquet, text = folder / f"{name}.parquet", folder / f"{name}.csv"
    if parquet.is_file() and text.is_file():
        msg = f"{folder}: expected {text.name} or {parquet.name}, received both; take one away"
        raise DatasetError(msg)
    path = parquet if parquet.is_file() else text
    kinds: dict[str, pa.DataType] = {
        field.name: pa.float64() if field.type == "numeric" else pa.string() for field in declared.fields
    } | {declared.label: pa.float64()}
    try:
        _check_columns(path, pq.read_schema(path).names if path is parquet else _header(path), kinds)
        if path is parquet:
            table = pq.read_table(path, columns=list(kinds), partitioning=None)
        else:
            options = pa_csv.ConvertOptions(
                column_types=kinds, include_columns=list(kinds), strings_can_be_null=True, null_values=[""]
            )
            table = pa_csv.read_csv(path, convert_options=options)
    except (OSError, ValueError, pa.ArrowException) as error:
        msg = f"{path}: expected a CSV file with a header, or {parquet.name}, received {error}"
        raise DatasetError(msg) from error
    if not table.num_rows:
        msg = f"{path}: expected rows, received none"
        raise DatasetError(msg)
    sequences = {field.name for field in declared.fields if field.type == "sequence"}
    columns = {column: _typed(path, table[column], column, kinds[column], column in sequences) for column in kinds}
    return pa.table(columns)


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return next(csv.reader(file), [])


def _check_columns(path: Path, there: list[str], kinds: Mapping[str, object]) -> None:
    """Refuse a file that lacks a column, or has it twice."""
    if wrong := {column: times for column in sorted(kinds) if (times := there.count(column)) != 1}:
        told = ", ".join(f"{column!r} {times} times" for column, times in wrong.items())
        msg = f"{path}: expected each of the columns {sorted(kinds)} once, received {told}; mend it, or {DECLARATION}"
        raise DatasetError(msg)


def _typed(
    path: Path,
    values: pa.ChunkedArray,
    column: str,
    kind: pa.DataType,
    is_sequence: bool,  # noqa: FBT001 - private, one call
) -> pa.ChunkedArray:
    """Return a column as numbers, terms, or lists of terms."""
    is_list = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
    try:
        if kind == pa.float64():
            return _numbers(path, values.cast(kind), column)
        if not is_sequence:
            return values.cast(kind)
        if is_list:
            return values.cast(pa.list_(pa.string()))
        text = pc.utf8_trim_whitespace(values.cast(pa.string()))
        lists = pc.split_pattern_regex(text, r"\s+")
        return pc.if_else(pc.equal(pc.utf8_length(text), 0), pa.scalar([], pa.list_(pa.string())), lists)
    except pa.ArrowException as error:
        expected = "a sequence" if is_sequence else "numbers" if kind == pa.float64() else "terms"
        msg = f"{path}: column {column}: expected {expected}, received {values.type} ({error})"
        raise DatasetError(msg) from error


def _numbers(path: Path, values: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    """Return numbers that a FLOAT32 holds; NaN is missing, as in every file of the project."""
    numbers = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    if pc.any(pc.greater_equal(pc.abs(numbers), _LARGEST)).as_py():
        largest = pc.max(pc.abs(numbers)).as_py()
        msg = f"{path}: column {column}: expected numbers nearer to 0 than {_LARGEST:g}, received {largest}"
        raise DatasetError(msg)
    return numbers


def _column_names(declared: GivenDataset) -> dict[str, str]:
    """Return field → a name that a column of a signature can have."""
    names: dict[str, str] = {}
    for field in declared.fields:
        plain = re.sub(r"[^a-z0-9]+", "_", field.name.lower()).strip("_")
        plain = plain if plain[:1].isalpha() else f"field_{plain}".rstrip("_")
        while plain in {*names.values(), SCORE.name}:
            plain += "_"
        names[field.name] = plain
    return names


def _inputs(declared: GivenDataset, names: Mapping[str, str], tables: Mapping[str, pa.Table]) -> tuple[ModelInput, ...]:
    """Return a column of a model for each field; a sequence is as long as the longest of any split."""
    inputs = []
    for field in declared.fields:
        vocabulary = names[field.shares or field.name]
        length = 0
        if field.type == "sequence":
            longest = (pc.max(pc.list_value_length(table[field.name])).as_py() for table in tables.values())
            length = max(1, *(found or 0 for found in longest))
        column = (
            Column(
                names[field.name],
                Dtype.FLOAT32,
                field.name,
                nullable=True,
                missing=_MISSING_NUMBER,
                encoding=Encoding.STANDARD,
            )
            if field.type == "numeric"
            else Column(
                names[field.name],
                Dtype.STRING,
                field.name,
                length=length,
                nullable=True,
                missing="",
                encoding=Encoding.VOCABULARY,
                vocabulary=vocabulary,
            )
        )
        inputs.append(ModelInput(column, field.scope))
    return tuple(inputs)


def _split(name: str, table: pa.Table, declared: GivenDataset, features: Mapping[str, NDArray[Any]]) -> Split:
    labels = table[declared.label].to_numpy()
    if wrong := sorted(set(np.unique(labels[~np.isin(labels, (0, 1))]).tolist()))[:5]:
        msg = f"{name}: column {declared.label}: expected labels of 0 and 1 on every row, received {wrong}"
        raise DatasetError(msg)
    users = np.zeros(table.num_rows, np.int64)
    if declared.group:
        groups = table[declared.group].combine_chunks()
        users = pc.dictionary_encode(groups, null_encoding="encode").indices.to_numpy().astype(np.int64)
    weights = np.ones(table.num_rows, dtype=np.float32)
    return Split(name, dict(features), labels.astype(np.int64), weights, users, {})


def _fitted(signature: Signature, train: Mapping[str, NDArray[Any]]) -> Transforms:
    """Return the vocabularies, most frequent terms first, and the scalings of the train rows."""
    terms: dict[str, list[pa.Array]] = {}
    scalings = {}
    for column in signature.input_columns:
        values = train[column.name]
        if column.encoding is Encoding.VOCABULARY:
            terms.setdefault(column.vocabulary, []).append(pa.array(values.ravel(), pa.string()))
            continue
        known = values[values != np.float32(_MISSING_NUMBER)].astype(np.float64)
        spread = float(known.std()) if known.size else 0.0
        scalings[column.name] = Scaling(float(known.mean()) if known.size else 0.0, spread or 1.0, -LIMIT, LIMIT)
    vocabularies = {}
    for name, parts in terms.items():
        counted = pc.value_counts(pa.chunked_array(parts))
        counts = dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
        vocabularies[name] = tuple(sorted(filter(None, counts), key=lambda term: (-counts[term], term)))
    return Transforms(vocabularies, scalings, boundaries={}, prior_mean=0.0)
