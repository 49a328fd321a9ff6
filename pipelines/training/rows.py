"""The label rows of a training set: what it is about, before features are joined to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.datasets import EVENT_TIME, LABEL, VALUE
from feature_repo.contracts.manifests import TrainingKind
from pipelines.io.duck import duckdb_session
from pipelines.training.labels import (
    explicit_labels,
    implicit_labels,
    labelled_positive,
    positive_labels,
    sampled_train,
)
from pipelines.training.splits import split_by_time
from pipelines.training.transforms import mean_of_events

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.schemas import Schema
    from pipelines.io.lake import Snapshot
    from pipelines.settings import Settings
    from pipelines.training.splits import Splits

_MEMORY = "2GB"


class LabelRows(Protocol):
    """What a kind of training set has rows of."""

    @property
    def sources(self) -> Mapping[str, str]:
        """What they are made from, beside events and features."""

    @property
    def label_min_value(self) -> float:
        """The least value of a positive label."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """What they have beside `LABEL_COLUMNS`."""

    def write(self, path: Path) -> Splits:
        """Write the rows in the order of their ids, once for both joins, and return where they are split.

        Raises:
            JobError: Nothing can be learned from them, or measured by them.
        """

    def prior_mean(self, train: Path, splits: Splits) -> float:
        """Return the mean value that is known by the end of train; `train` is the file of the train rows."""


@dataclass(frozen=True, slots=True)
class EventRows:
    """The label rows of events: of a training set for ranking, or for retrieval."""

    settings: Settings
    schema: Schema
    kind: TrainingKind
    events: Snapshot

    @property
    def sources(self) -> Mapping[str, str]:
        """Nothing else."""
        return {}

    @property
    def label_min_value(self) -> float:
        """As the settings say, else the schema."""
        return labelled_positive(self.settings, self.schema).min_value

    @property
    def columns(self) -> tuple[Column, ...]:
        """None."""
        return ()

    def write(self, path: Path) -> Splits:
        """Write the rows; shares of them, by time, split them.

        Where they are split is decided before train rows are left out, so that busy users do not move it.
        """
        every = path.with_name(".every-label.parquet")
        if self.events.partitions:
            _write_query(self._query(), every)
            table = pq.read_table(every, columns=[EVENT_TIME.name, LABEL.name], partitioning=None)
        else:
            table = pa.table({EVENT_TIME.name: pa.array([], pa.int64()), LABEL.name: pa.array([], pa.int64())})
        splits = split_by_time(
            table[EVENT_TIME.name].cast(pa.int64()).to_numpy(),
            table[LABEL.name].to_numpy(),
            self.settings.train_fraction,
            self.settings.valid_fraction,
            needs_both_classes=self.kind is TrainingKind.RANKING,
        )
        sample = (splits.train_end_us, self.settings.samples_per_user, self.settings.weight_half_life_days)
        _write_query(sampled_train(every, *sample), path)
        every.unlink()
        kept = pq.ParquetFile(path).metadata.num_rows - splits.valid_rows - splits.test_rows
        return replace(splits, train_rows=kept)

    def prior_mean(self, train: Path, splits: Splits) -> float:  # noqa: ARG002 - train rows are all of before
        """Return the mean value of the train rows that happened."""
        return mean_of_events(train, VALUE.name)

    def _query(self) -> str:
        positive = labelled_positive(self.settings, self.schema)
        files, counted = self.events.files, self.schema.counted_types
        if self.kind is TrainingKind.RETRIEVAL:
            return positive_labels(files, counted, positive)
        if self.schema.is_implicit:
            return implicit_labels(files, counted, positive, self.settings.negatives)
        return explicit_labels(files, counted, positive)


def _write_query(query: str, path: Path) -> None:
    with duckdb_session(_MEMORY) as connection:
        stream = connection.sql(query).to_arrow_reader(1 << 16)
        with pq.ParquetWriter(path, stream.schema) as writer:
            for batch in stream:
                writer.write_batch(batch)
