"""Job: label rows and features → a training set, joined strictly as of each label's time, split by time."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.embeddings import embeddings_named
from feature_repo.contracts.features import declared
from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.manifests import TRAINING_FILES, TRANSFORMS_FILE, TrainingKind, TrainingSet
from feature_repo.contracts.places import MANIFEST
from feature_repo.contracts.publishing import file_sha256, publishing_directory, remove_abandoned
from feature_repo.contracts.schemas import read_schema
from feature_repo.locks import exclusive
from pipelines.embeddings.snapshots import find_item_embeddings
from pipelines.feast_store.errors import RowCountError
from pipelines.feast_store.registry import check_registered, registered_service
from pipelines.feast_store.retrieval import retrieve
from pipelines.feast_store.store import offline_engine, open_store
from pipelines.features.tables import feature_table
from pipelines.io.arrow import arrow_type
from pipelines.io.lake import stored_dataset
from pipelines.io.spark import session_at_hand
from pipelines.training.columns import definition_hashes, encoded_columns
from pipelines.training.files import RowGroupWriter, beside, cut
from pipelines.training.identity import settings_inputs, training_set_id, verified
from pipelines.training.labels import LABEL_COLUMNS, as_of_the_last_refresh, as_of_the_moment
from pipelines.training.listed import ListedRows
from pipelines.training.recalled import find_recalled
from pipelines.training.rows import EventRows
from pipelines.training.splits import moment
from pipelines.training.transforms import fit_transforms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from feast import FeatureStore

    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.features import FeatureService
    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema
    from pipelines.io.lake import Snapshot
    from pipelines.settings import Settings
    from pipelines.training.rows import LabelRows

_LOG = logging.getLogger(__name__)


def run(
    settings: Settings,
    place: Namespace,
    cutoff: datetime,
    kind: TrainingKind = TrainingKind.RANKING,
    candidates: str = "",
) -> dict[str, object]:
    """Build the training set of all events before `cutoff`, unless it exists; equal inputs give an equal id.

    Args:
        settings: Which rows it has, and where it is made.
        place: The namespace.
        cutoff: Events from then on do not exist.
        kind: What it is for.
        candidates: What its rows are, of the kind LISTS: the id of what recall offered for questions.

    Raises:
        TrainingDataError: Too few events, or labels of one class only.
        CandidatesError: The candidates are gone, damaged, of other data, of a later cutoff, or know the answers.
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
        rows = _label_rows(settings, place, schema, kind, cutoff, events, candidates)
        read = {EVENTS.name: events, **tables}
        sources = {name: table.checksum for name, table in read.items()} | dict(rows.sources)
        lineage = _lineage(settings, place, schema, kind, service, cutoff, sources)
        if kind is TrainingKind.LISTS:
            lineage["candidates_id"] = candidates
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
                _build(settings, store, schema, service, rows, part, lineage)
                stack.close()  # a table that changed meanwhile ends the job here, before anything is published
    record = verified(directory)
    _LOG.info("training set %s: %s", name, record.rows)
    return {"training_set": name, "rows": record.rows}


def _service(settings: Settings, schema: Schema, kind: TrainingKind) -> FeatureService:
    features = declared(schema)
    if kind is TrainingKind.RETRIEVAL:
        return features.retrieval
    if settings.ranking_sequences:
        return features.ranking_sequences
    return features.ranking_windows if settings.ranking_windows or kind is TrainingKind.LISTS else features.ranking


def _label_rows(  # noqa: PLR0917 - by what, from where, of what
    settings: Settings,
    place: Namespace,
    schema: Schema,
    kind: TrainingKind,
    cutoff: datetime,
    events: Snapshot,
    candidates: str,
) -> LabelRows:
    if kind is TrainingKind.LISTS:
        return ListedRows(settings, schema, events, find_recalled(place, schema, cutoff, candidates))
    return EventRows(settings, schema, kind, events)


def _lineage(  # noqa: PLR0917 - all that a training set follows from
    settings: Settings,
    place: Namespace,
    schema: Schema,
    kind: TrainingKind,
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
        "feature_hashes": definition_hashes(schema, kind, service),
        "sources": dict(sources),
        "item_embeddings": embeddings.item_embeddings,
        "item_embeddings_sha256": embeddings.sha256,
    }


def _build(  # noqa: PLR0917 - by what, from where, of what, to where, and what is known already
    settings: Settings,
    store: FeatureStore,
    schema: Schema,
    service: FeatureService,
    rows: LabelRows,
    part: Path,
    lineage: Mapping[str, object],
) -> None:
    """Write every file of the training set and its record into `part`."""
    labels, kind = part / ".labels.parquet", TrainingKind(str(lineage["kind"]))
    splits, join = rows.write(labels), _Join(store, service, labels, rows.columns)
    lengths = dict(zip(TRAINING_FILES[:3], splits.rows.values(), strict=True))
    checksums = _write_rows(join, as_of_the_moment(labels), lengths, part)
    refreshed = as_of_the_last_refresh(labels, settings.refresh_hours, splits.valid_end_us)
    first = splits.train_rows + splits.valid_rows
    checksums |= _write_rows(join, refreshed, {TRAINING_FILES[3]: splits.test_rows}, part, first)
    labels.unlink()
    train = part / TRAINING_FILES[0]
    with session_at_hand(settings, f"encodings of {lineage['namespace']}", rows=splits.train_rows) as spark:
        transforms = fit_transforms(spark, train, encoded_columns(schema, kind, service))
    (part / TRANSFORMS_FILE).write_text(_canonical(transforms), encoding="utf-8")
    checksums[TRANSFORMS_FILE] = file_sha256(part / TRANSFORMS_FILE)
    record = TrainingSet(
        **lineage,  # type: ignore[arg-type]  # the lineage has the record's fields, by name
        train_end=moment(splits.train_end_us).isoformat(),
        valid_end=moment(splits.valid_end_us).isoformat(),
        label_min_value=rows.label_min_value,
        prior_mean=rows.prior_mean(train, splits),
        refresh_hours=settings.refresh_hours,
        rows={**splits.rows, TRAINING_FILES[3].removesuffix(".parquet"): splits.test_rows},
        checksums=checksums,
    )
    record.write(part / MANIFEST)


@dataclass(frozen=True, slots=True)
class _Join:
    """What is joined to label rows, and what they have beside it."""

    store: FeatureStore
    service: FeatureService
    labels: Path
    columns: tuple[Column, ...]
    """Of the label rows, without which the join is cheaper."""


def _write_rows(join: _Join, rows: str, files: Mapping[str, int], part: Path, first: int = 0) -> dict[str, str]:
    """Join features to `rows` and write them, in order, to files of the given lengths; return the files' checksums.

    `first` is the place of the first row among all label rows.
    """
    joined = (*LABEL_COLUMNS, *join.service.columns)
    fields = [pa.field(each.name, arrow_type(each), nullable=each.nullable) for each in (*joined, *join.columns)]
    with ExitStack() as stack:
        writers = [stack.enter_context(RowGroupWriter(part / name, pa.schema(fields))) for name in files]
        batches = stack.enter_context(retrieve(join.store, registered_service(join.store, join.service), rows, joined))
        for number, batch in cut(beside(batches, join.labels, join.columns, first), files.values()):
            writers[number].write(batch)
    received = {name: writer.rows for name, writer in zip(files, writers, strict=True)}
    if received != dict(files):
        msg = f"training set: expected rows {dict(files)} out of the join, received {received}"
        raise RowCountError(msg)
    return {name: writer.sha256 for name, writer in zip(files, writers, strict=True)}


def _canonical(record: Mapping[str, object]) -> str:
    return json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
