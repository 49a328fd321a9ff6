"""Job: events and features → a training set, joined strictly as of each label's time, split by time."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.datasets import EVENT_TIME, EVENTS, VALUE
from feature_repo.contracts.features import RANKING_FEATURES
from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.manifests import TRAINING_FILES, TRANSFORMS_FILE, TrainingSet
from feature_repo.contracts.places import MANIFEST
from feature_repo.contracts.publishing import file_sha256, publishing_directory
from feature_repo.contracts.signatures import RANKING
from pipelines.embeddings.snapshots import find_item_embeddings
from pipelines.feast_store.errors import RowCountError
from pipelines.feast_store.registry import check_registered, registered_service
from pipelines.feast_store.retrieval import retrieve
from pipelines.feast_store.store import offline_engine, open_store
from pipelines.feast_store.tables import duckdb_session
from pipelines.features.tables import feature_table
from pipelines.io.arrow import arrow_type
from pipelines.io.lake import exclusive, stored_dataset
from pipelines.jobs.leftovers import remove_leftovers
from pipelines.training.files import RowGroupWriter, cut
from pipelines.training.identity import settings_inputs, training_set_id, verified
from pipelines.training.labels import LABEL, LABEL_COLUMNS, as_of_the_last_refresh, as_of_the_moment, labels_sql
from pipelines.training.splits import Splits, moment, split_by_time
from pipelines.training.transforms import fit_transforms, mean_value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from feast import FeatureStore

    from feature_repo.contracts.places import Namespace
    from pipelines.io.lake import Snapshot
    from pipelines.settings import Settings

_LOG = logging.getLogger(__name__)
_COLUMNS = (*LABEL_COLUMNS, *RANKING_FEATURES.columns)
_SCHEMA = pa.schema([pa.field(column.name, arrow_type(column), nullable=False) for column in _COLUMNS])
_MEMORY = "2GB"


def run(settings: Settings, place: Namespace, cutoff: datetime) -> dict[str, object]:
    """Build the training set of all events before `cutoff`, unless it exists; equal inputs give an equal id.

    Raises:
        TrainingDataError: Too few events, or labels of one class only.
        DatasetChangedError: A table was rewritten while it was read.
        CorruptTrainingSetError: It exists, but is not what its manifest says.
    """
    with ExitStack() as stack, exclusive(place.locks / "training-set.lock", f"training sets of {place.name}"):
        remove_leftovers(place.training_sets)
        events = stack.enter_context(stored_dataset(place, EVENTS).reading(before=cutoff))
        tables = {
            group.view_name: stack.enter_context(feature_table(place, group).reading(before=cutoff))
            for group in RANKING_FEATURES.groups
        }
        sources = {EVENTS.name: events.checksum, **{view: table.checksum for view, table in tables.items()}}
        lineage = _lineage(place, cutoff, sources)
        name = training_set_id({**settings_inputs(settings), **lineage})
        directory = place.training_sets / name
        if not directory.exists():
            store = open_store(settings, place)
            check_registered(store, place)
            with (
                offline_engine(settings, f"training set of {place.name}"),
                publishing_directory(directory) as part,
            ):
                _build(settings, store, events, part, {"training_set_id": name, **lineage})
                stack.close()  # a table that changed meanwhile ends the job here, before anything is published
    record = verified(directory)
    _LOG.info("training set %s: %s", name, record.rows)
    return {"training_set": name, "rows": record.rows}


def _lineage(place: Namespace, cutoff: datetime, sources: Mapping[str, str]) -> dict[str, object]:
    """Return the part of the record that says what the training set is made from."""
    embeddings = find_item_embeddings(place, cutoff)
    return {
        "namespace": place.name,
        "cutoff": format_cutoff(cutoff),
        "feature_service": RANKING_FEATURES.name,
        "feature_service_hash": RANKING_FEATURES.hash,
        "views": RANKING_FEATURES.views,
        "feature_hashes": RANKING_FEATURES.feature_hashes,
        "sources": dict(sources),
        "item_embeddings": embeddings.item_embeddings,
        "item_embeddings_sha256": embeddings.sha256,
    }


def _build(
    settings: Settings, store: FeatureStore, events: Snapshot, part: Path, lineage: Mapping[str, object]
) -> None:
    """Write every file of the training set and its record into `part`."""
    labels = part / ".labels.parquet"
    splits = _write_labels(settings, events, labels)
    checksums = _write_splits(store, as_of_the_moment(labels), splits, part)
    refreshed = as_of_the_last_refresh(labels, settings.refresh_hours, splits.valid_end_us)
    checksums |= _write_rows(store, refreshed, {TRAINING_FILES[3]: splits.test_rows}, part)
    labels.unlink()
    train = part / TRAINING_FILES[0]
    (part / TRANSFORMS_FILE).write_text(_canonical(fit_transforms(train, RANKING.input_columns)), encoding="utf-8")
    checksums[TRANSFORMS_FILE] = file_sha256(part / TRANSFORMS_FILE)
    record = TrainingSet(
        **lineage,  # type: ignore[arg-type]  # the lineage has the record's fields, by name
        train_end=moment(splits.train_end_us).isoformat(),
        valid_end=moment(splits.valid_end_us).isoformat(),
        label_min_value=settings.label_min_value,
        prior_mean=mean_value(train, VALUE.name),
        refresh_hours=settings.refresh_hours,
        rows={**splits.rows, TRAINING_FILES[3].removesuffix(".parquet"): splits.test_rows},
        checksums=checksums,
    )
    record.write(part / MANIFEST)


def _write_labels(settings: Settings, events: Snapshot, labels: Path) -> Splits:
    """Write the label rows once, for both joins, and return where they are split."""
    if events.partitions:
        with duckdb_session(_MEMORY) as connection:
            stream = connection.sql(labels_sql(events.files, settings.label_min_value)).to_arrow_reader(1 << 16)
            with pq.ParquetWriter(labels, stream.schema) as writer:
                for batch in stream:
                    writer.write_batch(batch)
        table = pq.read_table(labels, columns=[EVENT_TIME.name, LABEL.name])
    else:
        table = pa.table({EVENT_TIME.name: pa.array([], pa.int64()), LABEL.name: pa.array([], pa.int64())})
    times = table[EVENT_TIME.name].cast(pa.int64()).to_numpy()
    return split_by_time(times, table[LABEL.name].to_numpy(), settings.train_fraction, settings.valid_fraction)


def _write_splits(store: FeatureStore, rows: str, splits: Splits, part: Path) -> dict[str, str]:
    return _write_rows(store, rows, dict(zip(TRAINING_FILES[:3], splits.rows.values(), strict=True)), part)


def _write_rows(store: FeatureStore, rows: str, files: Mapping[str, int], part: Path) -> dict[str, str]:
    """Join features to `rows` and write them, in order, to files of the given lengths; return the files' checksums."""
    with ExitStack() as stack:
        writers = [stack.enter_context(RowGroupWriter(part / name, _SCHEMA)) for name in files]
        service = registered_service(store, RANKING_FEATURES)
        batches = stack.enter_context(retrieve(store, service, rows, _COLUMNS))
        for number, batch in cut(batches, files.values()):
            writers[number].write(batch)
    received = {name: writer.rows for name, writer in zip(files, writers, strict=True)}
    if received != dict(files):
        msg = f"training set: expected rows {dict(files)} out of the join, received {received}"
        raise RowCountError(msg)
    return {name: writer.sha256 for name, writer in zip(files, writers, strict=True)}


def _canonical(record: Mapping[str, object]) -> str:
    return json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
