"""Job: questions that lists are judged by, at origins inside the log. Nothing online is read, touched or written."""

from __future__ import annotations

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from feature_repo.contracts.datasets import (
    EVENT_TIME,
    EVENT_TYPE,
    EVENTS,
    ITEM_ID,
    known_items_dataset,
    known_users_dataset,
    relation_datasets,
)
from feature_repo.contracts.embeddings import embeddings_named
from feature_repo.contracts.features import Freshness, declared
from feature_repo.contracts.intervals import feast_project, format_cutoff
from feature_repo.contracts.manifests import (
    OnlineSnapshot,
    PartKind,
    Questions,
    TrainingSet,
    catalogue_part,
    views_part,
)
from feature_repo.contracts.places import MANIFEST, cutoff_name
from feature_repo.contracts.publishing import (
    CorruptRecordError,
    damaged_file,
    file_sha256,
    publishing_directory,
    remove_abandoned,
)
from feature_repo.contracts.questions import (
    ANSWERS_FILE,
    CATALOGUE_FILE,
    QUESTIONS_FILE,
    SIMPLE_LISTS_FILE,
    SNAPSHOT_FILE,
    USER_FIELDS_FILE,
    Role,
)
from feature_repo.contracts.schemas import read_schema
from feature_repo.locks import exclusive
from pipelines.channels import fits
from pipelines.channels.choice import Validation
from pipelines.channels.fitting import fit_channels, fitted_channels, store_channels
from pipelines.channels.likes import like_matrix
from pipelines.errors import JobError
from pipelines.feast_store.registry import check_registered
from pipelines.feast_store.store import offline_engine, open_store
from pipelines.feast_store.tables import FeatureTable, microseconds
from pipelines.features.tables import feature_table
from pipelines.io.duck import create_view, duckdb_session
from pipelines.io.lake import stored_dataset
from pipelines.io.spark import spark_session
from pipelines.io.sql_text import literal
from pipelines.jobs.publish import read_catalogue
from pipelines.questions import simple_lists
from pipelines.questions.as_of import Sources, as_of
from pipelines.questions.asked import SAMPLING, ask, first_and_last_event, likes_before, seen_before, time_us
from pipelines.questions.origins import (
    Origin,
    choosing_end,
    given_origin,
    midnight_after,
    origins_after,
    spaced_origins,
    vectors_moment,
)
from pipelines.questions.user_fields import latest_groups, user_fields
from pipelines.training.identity import training_set_id as identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import duckdb
    import pyarrow as pa
    from feast import FeatureStore
    from pyspark.sql import SparkSession

    from feature_repo.contracts.manifests import Part
    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema
    from pipelines.questions.as_of import AsOf
    from pipelines.questions.asked import AskedUsers
    from pipelines.settings import Settings

_LOG = logging.getLogger(__name__)
_MEMORY = "2GB"
_VIEW = "events"
REVISION = 5
"""Raised by whoever changes how questions are made from the same inputs."""


def run(
    settings: Settings, place: Namespace, cutoff: datetime, training_set: str, origin: datetime | None
) -> dict[str, object]:
    """Write questions, unless they exist; equal inputs give an equal id.

    Args:
        settings: How many days hold answers, how many are asked, and where Spark runs.
        place: The namespace.
        cutoff: Events from then on do not exist.
        training_set: The origins follow from where its rows for fitting and choosing end; empty:
            `settings.question_origins` of the log's last days.
        origin: One that somebody chose; None: as above.

    Raises:
        JobError: The lake has no events before the cutoff, the features were not computed up to the origins, or
            `origin` lies outside the log.
        TransientError: Another job is writing what is read.
    """
    schema = read_schema(place)
    with ExitStack() as stack, exclusive(place.locks / "questions.lock", f"questions of namespace {place.name}"):
        remove_abandoned(place.questions)
        sources = _open(stack, settings, place, schema, cutoff)
        connection = stack.enter_context(duckdb_session(_MEMORY))
        create_view(connection, _VIEW, sources.events)
        origins = _origins(sources, connection, cutoff, training_set, origin)
        _check_features(sources, connection, origins)
        name = identity(_inputs(sources, training_set, origins))
        directory = place.questions / name
        if fault := damage(place, directory):
            _LOG.warning("questions %s are written anew: %s", name, fault)
            shutil.rmtree(directory)
        if not directory.exists():
            with publishing_directory(directory) as part:
                record = _write(sources, connection, cutoff, origins, part, (name, training_set))
                stack.close()  # a table that changed meanwhile ends the job here, before anything is published
                record.write(part / MANIFEST)
    record = Questions.read(directory / MANIFEST)
    asked = {each["origin"]: each["asked"] for each in record.origins}
    _LOG.info("questions %s: %s", name, asked or record.note)
    return {"questions": name, "asked": asked, "note": record.note}


def _open(stack: ExitStack, settings: Settings, place: Namespace, schema: Schema, cutoff: datetime) -> Sources:
    datasets = (EVENTS, known_items_dataset(schema), known_users_dataset(schema), *relation_datasets(schema))
    lake = tuple(stack.enter_context(stored_dataset(place, dataset).reading(before=cutoff)) for dataset in datasets)
    if not lake[0].rows:
        msg = f"namespace {place.name}: expected events before {format_cutoff(cutoff)}, the lake has none; ingest them"
        raise JobError(msg)
    features = declared(schema)
    groups = [group for group in (*features.users, *features.items) if group not in latest_groups(features)]
    tables = {
        group.view_name: stack.enter_context(feature_table(place, group).reading(before=cutoff)) for group in groups
    }
    return Sources(settings, place, schema, lake, tables)


def _origins(
    sources: Sources,
    connection: duckdb.DuckDBPyConnection,
    cutoff: datetime,
    training_set: str,
    origin: datetime | None,
) -> list[Origin]:
    first, last = first_and_last_event(connection)
    settings, end = sources.settings, min(cutoff, midnight_after(last))
    days, training = settings.question_days, settings.question_train_origins
    if origin is not None:
        return given_origin(origin, first, end, days, training)
    if training_set:
        return origins_after(*_known_until(sources.place, training_set), first, end, days, training)
    return spaced_origins(first, end, days, settings.question_origins, training)


def _known_until(place: Namespace, training_set: str) -> tuple[datetime, datetime]:
    """Return the end of the rows that models of a training set are fitted on, and of those that choose them."""
    path = place.training_sets / training_set / MANIFEST
    try:
        record = TrainingSet.read(path)
        return datetime.fromisoformat(record.train_end), datetime.fromisoformat(record.valid_end)
    except (OSError, ValueError, CorruptRecordError) as error:
        msg = f"{path}: expected the record of a training set, received {error}; run `python -m pipelines training-set`"
        raise JobError(msg) from error


def _check_features(sources: Sources, connection: duckdb.DuckDBPyConnection, origins: list[Origin]) -> None:
    """JobError unless the features know the last counted event before every origin: older ones would be asked with."""
    counted = ", ".join(map(literal, sources.schema.counted_types))
    time = microseconds(EVENT_TIME.name)
    for group in declared(sources.schema).groups:
        table = sources.tables.get(group.view_name)
        if table is None or group.freshness is not Freshness.PER_EVENT:
            continue
        for each in origins:
            known = f"{time} < {time_us(each.moment)}"
            rows = f"FROM {FeatureTable.of_group(sources.place, group).sql} WHERE {known}"
            query = (
                f"SELECT (SELECT max({EVENT_TIME.name}) {rows}), (SELECT max({EVENT_TIME.name}) FROM {_VIEW} "  # noqa: S608 - quoted
                f"WHERE {known} AND {EVENT_TYPE.name} IN ({counted}))"
            )
            ((received, expected),) = connection.execute(query).fetchall() if table.files else ((None, each.moment),)
            if received != expected:
                msg = (
                    f"feature view {group.view_name}: expected rows up to {expected}, the last event before the origin "
                    f"{format_cutoff(each.moment)}, received rows up to {received}; run `python -m pipelines features` "
                    "for a cutoff at or after it"
                )
                raise JobError(msg)


def _inputs(sources: Sources, training_set: str, origins: list[Origin]) -> dict[str, object]:
    settings = sources.settings
    return {
        "revision": [REVISION, SAMPLING],
        "sources": sources.checksums,
        "schema": sources.schema.to_json(),
        "training_set": training_set,
        "origins": [[format_cutoff(each.moment), format_cutoff(each.end), each.role.value] for each in origins],
        "users": {role.value: _users_asked(settings, role) for role in Role},
        "days": settings.question_days,
        "ease_items": settings.question_ease_items,
        "embeddings": {kind.name: kind.parameters for kind in embeddings_named(settings.embedding_names)},
        "variants": [list(fits.HALF_LIVES), list(fits.SHRINKAGES), list(fits.PENALTIES)],
        "channels": {channel.name: channel.definition for channel in fitted_channels(sources.schema)},
        "channel_sizes": [settings.channel_items, settings.channel_neighbours],
    }


def _users_asked(settings: Settings, role: Role) -> int:
    """Return how many users are asked at an origin at most."""
    train = min(settings.question_train_users, settings.question_users)
    return train if role is Role.TRAIN else settings.question_users


def _write(  # noqa: PLR0917 - from what, of which moments, to where, under which names
    sources: Sources,
    connection: duckdb.DuckDBPyConnection,
    cutoff: datetime,
    origins: list[Origin],
    part: Path,
    names: tuple[str, str],
) -> Questions:
    """Write the folder of every origin into `part`, and return the record of all."""
    records, found = [], []
    for each in origins:
        folder = part / cutoff_name(each.moment)
        folder.mkdir()
        asked = ask(connection, each, sources.schema.positive, _users_asked(sources.settings, each.role))
        pq.write_table(asked.questions, folder / QUESTIONS_FILE, compression="zstd")
        pq.write_table(asked.answers, folder / ANSWERS_FILE, compression="zstd")
        found.append(asked)
        span = {"origin": format_cutoff(each.moment), "end": format_cutoff(each.end), "role": each.role.value}
        records.append({**span, "folder": folder.name, **asked.counted})
        _LOG.info("%s", _told(records[-1]))
    if origins:
        _write_snapshots(sources, connection, origins, found, part, names[0])
    checksums = {file.relative_to(part).as_posix(): file_sha256(file) for file in sorted(part.glob("*/*"))}
    return Questions(
        questions_id=names[0],
        namespace=sources.place.name,
        schema=sources.schema.to_json(),
        cutoff=format_cutoff(cutoff),
        training_set_id=names[1],
        days=sources.settings.question_days,
        origins=records,
        note=_note(records, cutoff, names[1], sources.settings.question_train_origins),
        checksums=checksums,
        sources=sources.checksums,
    )


def _told(origin: Mapping[str, Any]) -> str:
    """Say whom an origin asks, and what of their likes is no answer."""
    share = origin["repeats"]
    left_out = "" if share is None else f"; {100 * share:.1f} % of their likes are left out: they had the item before"
    return (
        f"{origin['role']} origin {origin['origin']}: {origin['asked']} of {origin['users']} users asked, "
        f"{origin['answers']} answers, {origin['new_items']} items new{left_out}"
    )


def _note(origins: list[dict[str, Any]], cutoff: datetime, training_set: str, training: int) -> str:
    """Say why no list can be judged, chosen or learned from; nothing where each can be."""
    of = {role: [each for each in origins if each["role"] == role] for role in Role}
    asked = {role: any(each["asked"] for each in found) for role, found in of.items()}
    if not of[Role.TEST]:
        return _no_origins(cutoff, training_set)
    if not asked[Role.TEST]:
        return f"nobody likes anything new in {_spans(of[Role.TEST])}"
    if not of[Role.VALIDATION]:
        return "no midnight is left for a validation origin: nothing is chosen by lists, and none are learned from"
    if training and not asked[Role.TRAIN]:
        why = f"nobody likes anything new in {_spans(of[Role.TRAIN])}" if of[Role.TRAIN] else "the log is too short"
        return f"no lists are learned from before the validation origin, {of[Role.VALIDATION][0]['origin']}: {why}"
    return ""


def _spans(origins: list[dict[str, Any]]) -> str:
    return ", ".join(f"{each['origin'][:10]} to {each['end'][:10]}" for each in origins)


def damage(place: Namespace, directory: Path) -> str:
    """Return in what stored questions differ from what was written; nothing where they do not, or are not there.

    Item vectors and channels' tables lie outside the folder: without them the next to ask would be told less than there
    was.
    """
    if not directory.exists():
        return ""
    try:
        record = Questions.read(directory / MANIFEST)
        if (record.namespace, record.questions_id) != (place.name, directory.name):
            return f"expected {place.name} and {directory.name}, received {record.namespace} and {record.questions_id}"
        if fault := damaged_file(directory, record.checksums):
            return fault
        for each in directory.glob(f"*/{SNAPSHOT_FILE}"):
            snapshot = OnlineSnapshot.read(each)
            for part in (*snapshot.of_kind(PartKind.VECTORS).values(), *snapshot.of_kind(PartKind.CHANNEL).values()):
                if file_sha256(place.root / part.path) != part.checksum:
                    return f"{part.path} has other bytes than {each} says"
    except (OSError, ValueError, CorruptRecordError) as error:
        return str(error)
    return ""


def _no_origins(cutoff: datetime, training_set: str) -> str:
    if training_set:
        return (
            f"no midnight lies between the end of the rows that training set {training_set} "
            f"chooses on and the cutoff, {format_cutoff(cutoff)}"
        )
    return f"the log before {format_cutoff(cutoff)} is too short for an origin inside it"


def _write_snapshots(  # noqa: PLR0917 - from what, of which moments, to where, under which name
    sources: Sources,
    connection: duckdb.DuckDBPyConnection,
    origins: list[Origin],
    found: list[AskedUsers],
    part: Path,
    name: str,
) -> None:
    """Write what is known as of each origin: catalogue, users' fields, vectors, channels; simple lists to be judged."""
    settings, place = sources.settings, sources.place
    validation = Validation(connection, sources.schema.positive, settings)
    store = open_store(settings, place)
    check_registered(store, place)
    with (
        _scratch(place) as scratch,
        spark_session(settings, f"questions {place.name}", rows=sources.events.rows) as spark,
        offline_engine(settings, f"questions {place.name}"),
        threadpool_limits(1),  # of the whole process: of two fits at once, the one that ends first would lift its own
        _beside() as beside,
    ):
        # Vectors take one core, and as long as all else: nobody waits for them before the rest of all origins is there.
        fitted_at = {each.moment: vectors_moment(each, origins) for each in origins}
        vectors = {
            moment: beside.submit(_vectors, sources, spark, moment, scratch / f"{cutoff_name(moment)}-vectors")
            for moment in dict.fromkeys(fitted_at.values())
        }
        fitted: list[tuple[Part, ...]] = []
        sizes: list[tuple[int, int]] = []
        for each, asked in zip(origins, found, strict=True):
            folder = part / cutoff_name(each.moment)
            with as_of(sources, spark, each.moment, scratch / folder.name) as moment:
                catalogue = _write_catalogue(sources, store, each.moment, folder)
                if each.role is not Role.TRAIN:  # nobody learns from simple lists
                    _write_simple_lists(sources, connection, each, asked, catalogue, folder)
                _write_users(sources, connection, moment, asked, folder)
            chosen_before = choosing_end(each, origins)
            tables = fit_channels(connection, settings, sources.schema, each.moment, validation, chosen_before)
            fitted.append(tuple(store_channels(place, each.moment, tables).values()))
            sizes.append((catalogue.num_rows, len(asked.users)))
        for each, parts, size in zip(origins, fitted, sizes, strict=True):
            folder = part / cutoff_name(each.moment)
            published = place.questions / name / folder.name
            known = [*vectors[fitted_at[each.moment]].result(), *parts]
            _write_snapshot(sources, each.moment, known, size, folder, published)


@contextmanager
def _beside() -> Iterator[ThreadPoolExecutor]:
    """Give a thread for what takes long beside the rest; where the rest fails, what has not begun never does."""
    executor = ThreadPoolExecutor(1, "vectors")
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _write_catalogue(sources: Sources, store: FeatureStore, moment: datetime, folder: Path) -> pa.Table:
    files = {view: table.files for view, table in sources.tables.items()}
    items = sources.items if not sources.items.dataset.partitioned_by_event_date else sources.items.within(None, moment)
    catalogue = read_catalogue(store, declared(sources.schema), items, moment, files)
    pq.write_table(catalogue, folder / CATALOGUE_FILE, compression="zstd")
    return catalogue


def _write_simple_lists(  # noqa: PLR0917 - from what, whose, of what, to where
    sources: Sources,
    connection: duckdb.DuckDBPyConnection,
    origin: Origin,
    asked: AskedUsers,
    catalogue: pa.Table,
    folder: Path,
) -> None:
    likes = likes_before(connection, origin.moment, sources.schema.positive)
    ids = catalogue.column(ITEM_ID.name).to_numpy().astype("U")
    seen = seen_before(connection, origin.moment, asked.users)
    matrix = like_matrix(likes, ids)
    lists = simple_lists.write_lists(matrix, asked.users.to_pylist(), seen, sources.settings.question_ease_items)
    pq.write_table(lists, folder / SIMPLE_LISTS_FILE, compression="zstd")


def _write_users(
    sources: Sources, connection: duckdb.DuckDBPyConnection, moment: AsOf, asked: AskedUsers, folder: Path
) -> None:
    features = declared(sources.schema)
    latest = {group.name: moment.latest(group, asked.users) for group in latest_groups(features)}
    fields = user_fields(connection, sources.place, features, asked.questions, latest)
    pq.write_table(fields, folder / USER_FIELDS_FILE, compression="zstd")


def _vectors(sources: Sources, spark: SparkSession, moment: datetime, scratch: Path) -> list[Part]:
    """Fit item vectors as of a moment; return them as parts of a snapshot, which say when they were fitted."""
    with as_of(sources, spark, moment, scratch) as known:
        records = known.vectors()
    return [record.part(name, format_cutoff(moment), sources.schema) for name, record in records.items()]


def _write_snapshot(  # noqa: PLR0917 - from what, as of when, of what, how large, to where
    sources: Sources, moment: datetime, fitted: Sequence[Part], size: tuple[int, int], folder: Path, published: Path
) -> None:
    """Write the manifest of what would be online; `published` is where `folder` will be, `size` its items and users."""
    place, cutoff = sources.place, format_cutoff(moment)
    catalogue = (published / CATALOGUE_FILE).relative_to(place.root).as_posix()
    parts = (
        catalogue_part(cutoff, catalogue, file_sha256(folder / CATALOGUE_FILE)),
        views_part(cutoff, {group.name: group.view_name for group in declared(sources.schema).groups}),
        *fitted,
    )
    snapshot = OnlineSnapshot(
        namespace=place.name,
        schema=sources.schema.to_json(),
        cutoff=cutoff,
        feast_project=feast_project(place.name),
        users=size[1],
        items=size[0],
        parts={part.name: part for part in parts},
    )
    snapshot.write(folder / SNAPSHOT_FILE)


@contextmanager
def _scratch(place: Namespace) -> Iterator[Path]:
    """Give a folder for what Spark writes; `questions.lock` is held, so whatever lies there a killed job left."""
    folder = place.root / ".questions"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
