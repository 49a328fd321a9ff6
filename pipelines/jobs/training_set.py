"""Job: events and features → a training set, joined strictly as of each label's time, split by time."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.datasets import EVENT_TIME, EVENTS, LABEL, VALUE
from feature_repo.contracts.embeddings import embeddings_named
from feature_repo.contracts.features import declared
from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.manifests import TRAINING_FILES, TRANSFORMS_FILE, TrainingKind, TrainingSet
from feature_repo.contracts.places import MANIFEST
from feature_repo.contracts.publishing import file_sha256, publishing_directory, remove_abandoned
from feature_repo.contracts.schemas import read_schema
from feature_repo.contracts.signatures import model_inputs
from feature_repo.locks import exclusive
from pipelines.embeddings.snapshots import find_item_embeddings
from pipelines.feast_store.errors import RowCountError
from pipelines.feast_store.registry import check_registered, registered_service
from pipelines.feast_store.retrieval import retrieve
from pipelines.feast_store.store import offline_engine, open_store
from pipelines.features.tables import feature_table
from pipelines.io.arrow import arrow_type
from pipelines.io.duck import duckdb_session
from pipelines.io.lake import stored_dataset
from pipelines.io.spark import session_at_hand
from pipelines.training.files import RowGroupWriter, cut
from pipelines.training.identity import settings_inputs, training_set_id, verified
from pipelines.training.labels import (
    LABEL_COLUMNS,
    as_of_the_last_refresh,
    as_of_the_moment,
    explicit_labels,
    implicit_labels,
    labelled_positive,
    positive_labels,
    sampled_train,
)
from pipelines.training.splits import Splits, moment, split_by_time
from pipelines.training.transforms import fit_transforms, mean_of_events

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from feast import FeatureStore

    from feature_repo.contracts.features import FeatureService
    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema
    from pipelines.io.lake import Snapshot
    from pipelines.settings import Settings

_LOG = logging.getLogger(__name__)
_MEMORY = "2GB"


def run(
    settings: Settings, place: Namespace, cutoff: datetime, kind: TrainingKind = TrainingKind.RANKING
) -> dict[str, object]:
    """Build the training set of all events before `cutoff`, unless it exists; equal inputs give an equal id.

    Raises:
        TrainingDataError: Too few events, or labels of one class only.
        DatasetChangedError: A table was rewritten while it was read.
        CorruptTrainingSetError: It exists, but is not what its manifest says.
    """
    schema = read_schema(place)
    service = _service(settings, schema, kind)
    with ExitStack() as stack, exclusive(place.locks / "training-set.lock", f"training sets of {place.name}"):
        remove_abandoned(place.training_sets)
        events = stack.enter_context(stored_dataset(place, EVENTS).reading(before=cutoff))
        tables = {
            group.view_name: stack.enter_context(feature_table(place, group).reading(before=cutoff))
            for group in service.groups
        }
        sources = {EVENTS.name: events.checksum, **{view: table.checksum for view, table in tables.items()}}
        lineage = _lineage(settings, place, schema, service, cutoff, sources)
        name = training_set_id({**settings_inputs(settings, schema, kind, service), **lineage})
        directory = place.training_sets / name
        if not directory.exists():
            store = open_store(settings, place)
            check_registered(store, place)
            with (
                offline_engine(settings, f"training set of {place.name}"),
                publishing_directory(directory) as part,
            ):
                lineage |= {"kind": kind, "training_set_id": name}
                _build(settings, store, schema, service, events, part, lineage)
                stack.close()  # a table that changed meanwhile ends the job here, before anything is published
    record = verified(directory)
    _LOG.info("training set %s: %s", name, record.rows)
    return {"training_set": name, "rows": record.rows}


def _service(settings: Settings, schema: Schema, kind: TrainingKind) -> FeatureService:
    features = declared(schema)
    if kind is TrainingKind.RETRIEVAL:
        return features.retrieval
    return features.ranking_windows if settings.ranking_windows else features.ranking


def _lineage(  # noqa: PLR0917 - all that a training set follows from
    settings: Settings,
    place: Namespace,
    schema: Schema,
    service: FeatureService,
    cutoff: datetime,
    sources: Mapping[str, str],
) -> dict[str, object]:
    """Return the part of the record that says what the training set is made from."""
    first = embeddings_named(settings.embedding_names)[0]
    embeddings = find_item_embeddings(place, first, cutoff)
    return {
        "namespace": place.name,
        "schema": schema.to_json(),
        "cutoff": format_cutoff(cutoff),
        "feature_service": service.name,
        "feature_service_hash": service.hash,
        "views": service.views,
        "feature_hashes": service.feature_hashes,
        "sources": dict(sources),
        "item_embeddings": embeddings.item_embeddings,
        "item_embeddings_sha256": embeddings.sha256,
    }


def _build(  # noqa: PLR0917 - by what, from where, of what, to where, and what is known already
    settings: Settings,
    store: FeatureStore,
    schema: Schema,
    service: FeatureService,
    events: Snapshot,
    part: Path,
    lineage: Mapping[str, object],
) -> None:
    """Write every file of the training set and its record into `part`."""
    labels, kind = part / ".labels.parquet", TrainingKind(str(lineage["kind"]))
    splits = _write_labels(settings, schema, kind, events, labels)
    lengths = dict(zip(TRAINING_FILES[:3], splits.rows.values(), strict=True))
    checksums = _write_rows(store, service, as_of_the_moment(labels), lengths, part)
    refreshed = as_of_the_last_refresh(labels, settings.refresh_hours, splits.valid_end_us)
    checksums |= _write_rows(store, service, refreshed, {TRAINING_FILES[3]: splits.test_rows}, part)
    labels.unlink()
    train = part / TRAINING_FILES[0]
    with session_at_hand(settings, f"encodings of {lineage['namespace']}", rows=splits.train_rows) as spark:
        transforms = fit_transforms(spark, train, [each.column for each in model_inputs(service)])
    (part / TRANSFORMS_FILE).write_text(_canonical(transforms), encoding="utf-8")
    checksums[TRANSFORMS_FILE] = file_sha256(part / TRANSFORMS_FILE)
    record = TrainingSet(
        **lineage,  # type: ignore[arg-type]  # the lineage has the record's fields, by name
        train_end=moment(splits.train_end_us).isoformat(),
        valid_end=moment(splits.valid_end_us).isoformat(),
        label_min_value=labelled_positive(settings, schema).min_value,
        prior_mean=mean_of_events(train, VALUE.name),
        refresh_hours=settings.refresh_hours,
        rows={**splits.rows, TRAINING_FILES[3].removesuffix(".parquet"): splits.test_rows},
        checksums=checksums,
    )
    record.write(part / MANIFEST)


def _write_labels(settings: Settings, schema: Schema, kind: TrainingKind, events: Snapshot, labels: Path) -> Splits:
    """Write the label rows once, for both joins, and return where they are split.

    Where they are split is decided before train rows are left out, so that busy users do not move it.
    """
    every = labels.with_name(".every-label.parquet")
    if events.partitions:
        _write_query(_labels(settings, schema, kind, events), every)
        table = pq.read_table(every, columns=[EVENT_TIME.name, LABEL.name], partitioning=None)
    else:
        table = pa.table({EVENT_TIME.name: pa.array([], pa.int64()), LABEL.name: pa.array([], pa.int64())})
    splits = split_by_time(
        table[EVENT_TIME.name].cast(pa.int64()).to_numpy(),
        table[LABEL.name].to_numpy(),
        settings.train_fraction,
        settings.valid_fraction,
        needs_both_classes=kind is TrainingKind.RANKING,
    )
    sample = (splits.train_end_us, settings.samples_per_user, settings.weight_half_life_days)
    _write_query(sampled_train(every, *sample), labels)
    every.unlink()
    kept = pq.ParquetFile(labels).metadata.num_rows - splits.valid_rows - splits.test_rows
    return replace(splits, train_rows=kept)


def _labels(settings: Settings, schema: Schema, kind: TrainingKind, events: Snapshot) -> str:
    """Return the query for the label rows of a kind of training set."""
    positive = labelled_positive(settings, schema)
    if kind is TrainingKind.RETRIEVAL:
        return positive_labels(events.files, schema.counted_types, positive)
    if schema.is_implicit:
        return implicit_labels(events.files, schema.counted_types, positive, settings.negatives)
    return explicit_labels(events.files, schema.counted_types, positive)


def _write_query(query: str, path: Path) -> None:
    with duckdb_session(_MEMORY) as connection:
        stream = connection.sql(query).to_arrow_reader(1 << 16)
        with pq.ParquetWriter(path, stream.schema) as writer:
            for batch in stream:
                writer.write_batch(batch)


def _write_rows(
    store: FeatureStore, service: FeatureService, rows: str, files: Mapping[str, int], part: Path
) -> dict[str, str]:
    """Join features to `rows` and write them, in order, to files of the given lengths; return the files' checksums."""
    columns = (*LABEL_COLUMNS, *service.columns)
    stored = pa.schema([pa.field(column.name, arrow_type(column), nullable=False) for column in columns])
    with ExitStack() as stack:
        writers = [stack.enter_context(RowGroupWriter(part / name, stored)) for name in files]
        batches = stack.enter_context(retrieve(store, registered_service(store, service), rows, columns))
        for number, batch in cut(batches, files.values()):
            writers[number].write(batch)
    received = {name: writer.rows for name, writer in zip(files, writers, strict=True)}
    if received != dict(files):
        msg = f"training set: expected rows {dict(files)} out of the join, received {received}"
        raise RowCountError(msg)
    return {name: writer.sha256 for name, writer in zip(files, writers, strict=True)}


def _canonical(record: Mapping[str, object]) -> str:
    return json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
