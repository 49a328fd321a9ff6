"""Read a training set, and refuse one that is not what its manifest and the contract say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.contracts.channels import fit_date
from feature_repo.contracts.datasets import DRAWN, EVENT_TIME, GROUP_ID, LABEL, USER_ID, VALUE, WEIGHT
from feature_repo.contracts.manifests import TRAINING_FILES, TRANSFORMS_FILE, TrainingKind, TrainingSet
from feature_repo.contracts.objectives import PROBABILITY
from feature_repo.contracts.places import MANIFEST, Namespace
from feature_repo.contracts.publishing import CorruptRecordError
from feature_repo.contracts.schemas import Schema
from feature_repo.contracts.signatures import UnknownFeaturesError, feature_hashes, pair_inputs, ranking
from models.errors import DatasetError
from models.inputs import Columns, from_arrow
from models.transforms import Transforms, read_transforms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.objectives import Objective
    from feature_repo.contracts.signatures import Signature

TRAIN, VALID, TEST, TEST_AS_OF_REFRESH = (name.removesuffix(".parquet") for name in TRAINING_FILES)
_TARGETS = (VALUE, DRAWN, GROUP_ID)


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of a training set, in time order."""

    name: str
    features: Columns
    """The signature's inputs, whatever the untrained baselines read, and `user_id`."""
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    """`[rows]`, how much a row counts in training; 1 in the other splits."""
    users: NDArray[np.int64]
    """`[rows]`, a code per user, dense over the split as it was read: for metrics and resampling by user."""
    targets: Columns
    """What else can be learned: the columns of `_TARGETS`, `[rows]` each, of which an old training set lacks some."""

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> Split:
        """Return these rows, in this order."""
        return Split(
            self.name,
            {name: values[rows] for name, values in self.features.items()},
            self.labels[rows],
            self.weights[rows],
            self.users[rows],
            {name: values[rows] for name, values in self.targets.items()},
        )

    def target(self, column: Column) -> NDArray[Any]:
        """Return what else can be learned, `[rows]`; DatasetError if the training set was built without it."""
        if column.name not in self.targets:
            msg = (
                f"split {self.name}: expected a column {column.name}, which the spec's objective reads, received none; "
                "build the training set anew with this code"
            )
            raise DatasetError(msg)
        return self.targets[column.name]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A training set in memory."""

    record: TrainingSet
    signature: Signature
    """What models of these features and this objective take and return."""
    directory: Path
    transforms: Transforms
    splits: Mapping[str, Split]

    def __getitem__(self, name: str) -> Split:
        """Return one split: TRAIN, VALID, TEST or TEST_AS_OF_REFRESH."""
        return self.splits[name]


def find_training_set(namespace: Namespace, training_set_id: str) -> Path:
    """Return the training set's directory; DatasetError says which there are."""
    directory = namespace.training_sets / training_set_id
    if not (directory / MANIFEST).is_file():
        known = sorted(path.parent.name for path in namespace.training_sets.glob(f"*/{MANIFEST}"))
        msg = (
            f"training set {training_set_id!r} of namespace {namespace.name}: expected one of {known} below "
            f"{namespace.training_sets}; run `python -m pipelines training-set --namespace {namespace.name} --cutoff C`"
        )
        raise DatasetError(msg)
    return directory


def read_dataset(
    directory: Path,
    splits: tuple[str, ...] = (),
    features: tuple[str, ...] = (),
    objective: Objective = PROBABILITY,
    kind: TrainingKind = TrainingKind.RANKING,
    *,
    places: NDArray[np.int64] | None = None,
) -> Dataset:
    """Read a training set: all its splits, or those named. What models take of it follows from its schema.

    Args:
        directory: The training set's.
        splits: Their names; none for all.
        features: A spec's feature set; none for all that the training set has, pair features included.
        objective: What is learned of it.
        kind: What its rows are to be: a spec's `rows`.
        places: Those of the rows that are kept of each split, ascending; None for all. The others take no memory.

    Raises:
        DatasetError: it is for another kind of model, lacks features of the set, has other feature definitions than the
            contract's, a missing column, other rows than promised, or figures of a channel that was fitted after a
            row's time.
    """
    try:
        record = TrainingSet.read(directory / MANIFEST)
    except CorruptRecordError as error:
        raise DatasetError(str(error)) from error
    _check_kind(record, kind)
    signature = signature_of(record, features or _all_features(record), objective)
    wanted = splits or tuple(name.removesuffix(".parquet") for name in TRAINING_FILES)
    return Dataset(
        record=record,
        signature=signature,
        directory=directory,
        transforms=read_transforms(directory / TRANSFORMS_FILE, signature, record.prior_mean),
        splits={name: _read_split(directory / f"{name}.parquet", name, record, signature, places) for name in wanted},
    )


def _all_features(record: TrainingSet) -> tuple[str, ...]:
    pairs = pair_inputs(Schema.from_json(record.schema)).keys() & record.feature_hashes.keys()
    return (record.feature_service, *sorted(pairs))


_HOW = {TrainingKind.RANKING: "without --kind", TrainingKind.LISTS: "with --kind lists and --candidates"}
"""Kind of a training set that ranking models learn from → how it is asked for."""


def _check_kind(record: TrainingSet, kind: TrainingKind) -> None:
    if record.kind is not kind:
        msg = (
            f"training set {record.training_set_id}: expected one of kind {kind}, received {record.kind}; models of "
            f"rows: {kind} learn from what `python -m pipelines training-set --namespace {record.namespace} --cutoff "
            f"{record.cutoff}` makes, {_HOW[kind]}"
        )
        raise DatasetError(msg)


def signature_of(record: TrainingSet, features: tuple[str, ...], objective: Objective = PROBABILITY) -> Signature:
    """Return what a model takes and returns that learns from a training set.

    Raises:
        DatasetError: The training set lacks features of the set, or has them by another definition.
    """
    schema = Schema.from_json(record.schema)
    try:
        signature = ranking(schema, features, objective)
    except UnknownFeaturesError as error:
        msg = f"training set {record.training_set_id}: {error}"
        raise DatasetError(msg) from error
    _check_features(record, schema, signature)
    return signature


def _check_features(record: TrainingSet, schema: Schema, signature: Signature) -> None:
    hashes = feature_hashes(schema)
    expected = {column.name: hashes[column.name] for column in signature.input_columns if column.name in hashes}
    if absent := sorted(expected.keys() - record.feature_hashes.keys()):
        if pairs := [name for name in absent if name in signature.pairs]:
            msg = (
                f"training set {record.training_set_id}: expected pair features {pairs} of the spec's feature set, it "
                "was built without candidates, so that no row knows what a channel said of it; build one with them, "
                "or take the pair features out of the spec"
            )
            raise DatasetError(msg)
        msg = (
            f"training set {record.training_set_id}: expected features {absent} of the spec's feature set, it has "
            f"those of the service {record.feature_service} alone; build one with KESTREL_RANKING_WINDOWS=true for "
            "the windows, KESTREL_RANKING_SEQUENCES=true for the last events, or take them out of the spec"
        )
        raise DatasetError(msg)
    different = sorted(name for name, digest in expected.items() if record.feature_hashes[name] != digest)
    if different:
        msg = (
            f"training set {record.training_set_id}: features {different} were computed by another definition than the "
            f"contract's (expected {[expected[name] for name in different]}, received "
            f"{[record.feature_hashes[name] for name in different]}); "
            "run the features and training-set jobs again"
        )
        raise DatasetError(msg)


def _read_split(
    path: Path, name: str, record: TrainingSet, signature: Signature, places: NDArray[np.int64] | None
) -> Split:
    inputs = (column for column in signature.input_columns if column is not USER_ID)
    columns = (USER_ID, *inputs, LABEL, WEIGHT)
    dates = {channel: fit_date(channel) for channel in sorted({pair.channel for pair in signature.pairs.values()})}
    times = (EVENT_TIME, *dates.values()) if dates else ()
    try:
        file = pq.ParquetFile(path)
    except (OSError, ValueError) as error:
        msg = f"{path}: expected a Parquet file of training set {record.training_set_id} ({error}); build it again"
        raise DatasetError(msg) from error
    with file:
        absent = sorted({column.name for column in (*columns, *times)} - set(file.schema_arrow.names))
        if absent:
            msg = f"{path}: expected columns {absent}, received {file.schema_arrow.names}; build the training set again"
            raise DatasetError(msg)
        if file.metadata.num_rows != record.rows.get(name):
            msg = f"{path}: its manifest promises {record.rows.get(name)} rows, received {file.metadata.num_rows}"
            raise DatasetError(msg)
        others = tuple(column for column in _TARGETS if column.name in file.schema_arrow.names)
        read = [column.name for column in (*columns, *others, *times)]
        table = file.read(read) if places is None else _rows_at(file, read, places)
    try:
        arrays: Columns = {column.name: from_arrow(table[column.name], column) for column in (*columns, *others)}
    except DatasetError as error:
        msg = f"{path}: {error}"
        raise DatasetError(msg) from error
    _check_fit_dates(path, table, arrays, signature)
    targets = {column.name: arrays.pop(column.name) for column in others}
    labels = arrays.pop(LABEL.name)
    if not np.isin(labels, (0, 1)).all():
        msg = f"{path}: column {LABEL.name}: expected 0 or 1, received {np.unique(labels)[:10].tolist()}"
        raise DatasetError(msg)
    weights = arrays.pop(WEIGHT.name)
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        msg = f"{path}: column {WEIGHT.name}: expected numbers from 0, received {weights.min()} to {weights.max()}"
        raise DatasetError(msg)
    users = pa.array(arrays[USER_ID.name], pa.string()).dictionary_encode().indices.to_numpy()
    return Split(name, arrays, labels, weights, users.astype(np.int64), targets)


def _rows_at(file: pq.ParquetFile, columns: list[str], places: NDArray[np.int64]) -> pa.Table:
    """Return some rows of a file, of which no more than a batch is in memory at a time."""
    parts, start = [file.schema_arrow.empty_table().select(columns)], 0
    for batch in file.iter_batches(columns=columns):
        first, last = np.searchsorted(places, [start, start + batch.num_rows])
        parts.append(pa.Table.from_batches([batch]).select(columns).take(places[first:last] - start))
        start += batch.num_rows
    return pa.concat_tables(parts)


def _check_fit_dates(path: Path, table: pa.Table, arrays: Columns, signature: Signature) -> None:
    """Refuse figures of a channel that say no date, or one after the row's time: it may have learned the label."""
    columns = {column.name: column for column in signature.input_columns}
    for name, pair in signature.pairs.items():
        date = fit_date(pair.channel).name
        known = arrays[name] != columns[name].missing
        # Null, where the date is, compares as null: such a row is no better than one of the future.
        in_time = pc.fill_null(pc.less_equal(table[date], table[EVENT_TIME.name]), fill_value=False)
        wrong = np.flatnonzero(known & ~in_time.to_numpy(zero_copy_only=False))
        if len(wrong):
            row = int(wrong[0])
            msg = (
                f"{path}: column {name}: expected figures of fits at or before each row's time, received {len(wrong)} "
                f"of later ones or without a date, the first in row {row}, of {table[EVENT_TIME.name][row]}, fitted at "
                f"{table[date][row]}; they know what came after; join each row to a fit before it"
            )
            raise DatasetError(msg)


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return rows and share of positives of each split, for logs."""
    return {
        name: {"rows": split.rows, "positives": round(float(split.labels.mean()), 4) if split.rows else 0.0}
        for name, split in dataset.splits.items()
    }
