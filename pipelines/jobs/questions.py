"""Job: questions that lists are judged by, at origins inside the log. Nothing online is read, touched or written."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.datasets import (
    EVENTS,
    ITEM_ID,
    USER_ID,
    known_items_dataset,
    known_users_dataset,
    relation_datasets,
)
from feature_repo.contracts.embeddings import embeddings_named
from feature_repo.contracts.features import declared
from feature_repo.contracts.intervals import feast_project, format_cutoff
from feature_repo.contracts.manifests import OnlineSnapshot, Questions, TrainingSet
from feature_repo.contracts.places import MANIFEST, cutoff_name
from feature_repo.contracts.publishing import file_sha256, publishing_directory
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
from pipelines.embeddings.kinds import fit_items_if_any
from pipelines.embeddings.likes import liked_events, liked_often
from pipelines.embeddings.side_information import NOTHING_SAID, side_information
from pipelines.embeddings.snapshots import write_item_embeddings
from pipelines.errors import JobError
from pipelines.feast_store.registry import check_registered
from pipelines.feast_store.store import offline_engine, open_store
from pipelines.features.groups import Inputs, compute
from pipelines.features.tables import feature_table
from pipelines.io.arrow import content_sha256
from pipelines.io.duck import create_view, duckdb_session
from pipelines.io.lake import exclusive, stored_dataset
from pipelines.io.leftovers import remove_leftovers
from pipelines.io.spark import read_snapshot, spark_session
from pipelines.jobs.publish import read_catalogue
from pipelines.questions import simple_lists
from pipelines.questions.asked import SAMPLING, ask, first_event, likes_before, seen_before
from pipelines.questions.origins import Origin, given_origin, origins_after, spaced_origins
from pipelines.questions.user_fields import latest_groups, user_fields
from pipelines.training.identity import training_set_id as identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import duckdb
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema
    from pipelines.io.lake import Snapshot
    from pipelines.questions.asked import AskedUsers
    from pipelines.settings import Settings

_LOG = logging.getLogger(__name__)
_MEMORY = "2GB"
_VIEW = "events"
REVISION = 1
"""Raised by whoever changes how questions are made from the same inputs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """What questions are made from."""

    settings: Settings
    place: Namespace
    schema: Schema
    lake: tuple[Snapshot, ...]
    """Events, items, users, relations where the schema has them."""
    tables: Mapping[str, Snapshot]
    """Feature view → its table, of the groups of users and items that are served."""

    @property
    def checksums(self) -> dict[str, str]:
        """What determines the content, beside settings and origins."""
        names = {snapshot.dataset.name: snapshot.checksum for snapshot in self.lake}
        return names | {view: table.checksum for view, table in self.tables.items()}


def run(
    settings: Settings, place: Namespace, cutoff: datetime, training_set: str, origin: datetime | None
) -> dict[str, object]:
    """Write questions, unless they exist; equal inputs give an equal id.

    Args:
        settings: How many days hold answers, how many are asked, and where Spark runs.
        place: The namespace.
        cutoff: Events from then on do not exist.
        training_set: The origin follows from where its model's knowledge ends; empty: `settings.question_origins` of
            the log's last days.
        origin: One that somebody chose; None: as above.

    Raises:
        JobError: The lake has no events before the cutoff, the features were not computed, or `origin` lies outside
            the log.
        TransientError: Another job is writing what is read.
    """
    schema = read_schema(place)
    with ExitStack() as stack, exclusive(place.locks / "questions.lock", f"questions of namespace {place.name}"):
        remove_leftovers(place.questions)
        sources = _open(stack, settings, place, schema, cutoff)
        connection = stack.enter_context(duckdb_session(_MEMORY))
        create_view(connection, _VIEW, sources.lake[0])
        origins = _origins(sources, connection, cutoff, training_set, origin)
        name = identity(_inputs(sources, training_set, origins))
        directory = place.questions / name
        if not (directory / MANIFEST).exists():
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
    groups = [group for group in (*features.users, *features.item_ranking) if group not in latest_groups(features)]
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
    first = first_event(connection)
    if first is None:  # `_open` has refused it
        return []
    days = sources.settings.question_days
    if origin is not None:
        return given_origin(origin, first, cutoff, days)
    if training_set:
        path = sources.place.training_sets / training_set / MANIFEST
        if not path.exists():
            msg = f"{path}: expected the training set's manifest, found none; run `python -m pipelines training-set`"
            raise JobError(msg)
        known_until = datetime.fromisoformat(TrainingSet.read(path).valid_end)
        return origins_after(known_until, first, cutoff, days)
    return spaced_origins(first, cutoff, days, sources.settings.question_origins)


def _inputs(sources: Sources, training_set: str, origins: list[Origin]) -> dict[str, object]:
    settings = sources.settings
    return {
        "revision": [REVISION, SAMPLING],
        "sources": sources.checksums,
        "schema": sources.schema.to_json(),
        "training_set": training_set,
        "origins": [[format_cutoff(each.moment), format_cutoff(each.end), each.role.value] for each in origins],
        "users": settings.question_users,
        "days": settings.question_days,
        "ease_items": settings.question_ease_items,
        "embeddings": {kind.name: kind.parameters for kind in embeddings_named(settings.embedding_names)},
        "variants": [
            list(simple_lists.HALF_LIVES),
            list(simple_lists.SHRINKAGES),
            list(simple_lists.PENALTIES),
        ],
    }


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
        asked = ask(connection, each, sources.schema.positive, sources.settings.question_users)
        pq.write_table(asked.questions, folder / QUESTIONS_FILE, compression="zstd")
        pq.write_table(asked.answers, folder / ANSWERS_FILE, compression="zstd")
        found.append(asked)
        span = {"origin": format_cutoff(each.moment), "end": format_cutoff(each.end), "role": each.role.value}
        records.append({**span, "folder": folder.name, **asked.counted})
        _LOG.info("%s", _told(records[-1]))
    if origins:
        _write_snapshots(sources, connection, origins, found, part, names[0])
    checksums = {
        file.relative_to(part).as_posix(): content_sha256(pq.read_table(file, partitioning=None))
        for file in sorted(part.glob("*/*.parquet"))
    }
    return Questions(
        questions_id=names[0],
        namespace=sources.place.name,
        schema=sources.schema.to_json(),
        cutoff=format_cutoff(cutoff),
        training_set_id=names[1],
        days=sources.settings.question_days,
        origins=records,
        note="" if origins else _no_origins(cutoff, names[1]),
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


def _no_origins(cutoff: datetime, training_set: str) -> str:
    if training_set:
        return (
            f"no list can be judged: no midnight lies between the end of the rows that training set {training_set} "
            f"chooses on and the cutoff, {format_cutoff(cutoff)}"
        )
    return f"no list can be judged: the log before {format_cutoff(cutoff)} is too short for an origin inside it"


def _write_snapshots(  # noqa: PLR0917 - from what, of which moments, to where, under which name
    sources: Sources,
    connection: duckdb.DuckDBPyConnection,
    origins: list[Origin],
    found: list[AskedUsers],
    part: Path,
    name: str,
) -> None:
    """Write what is known as of each origin: of users and items, vectors where a model is asked, and simple lists."""
    settings, place = sources.settings, sources.place
    store = open_store(settings, place)
    check_registered(store, place)
    features = declared(sources.schema)
    with (
        _scratch(place) as scratch,
        spark_session(settings, f"questions {place.name}", rows=sources.lake[0].rows) as spark,
        offline_engine(settings, f"questions {place.name}"),
    ):
        for each, asked in zip(origins, found, strict=True):
            folder = part / cutoff_name(each.moment)
            files = {view: table.files for view, table in sources.tables.items()}
            catalogue = read_catalogue(store, features, _items_before(sources, each.moment), each.moment, files)
            pq.write_table(catalogue, folder / CATALOGUE_FILE, compression="zstd")
            _write_simple_lists(sources, connection, each, asked, catalogue, folder)
            if each.role is Role.VALIDATION:
                continue
            moment = _Moment.of(sources, spark, each, scratch / folder.name)
            latest = {group.name: moment.latest(group.name, asked) for group in latest_groups(features)}
            fields = user_fields(connection, place, features, asked.questions, latest)
            pq.write_table(fields, folder / USER_FIELDS_FILE, compression="zstd")
            snapshot = OnlineSnapshot(
                namespace=place.name,
                schema=sources.schema.to_json(),
                cutoff=format_cutoff(each.moment),
                feast_project=feast_project(place.name),
                views={group.name: group.view_name for group in features.groups},
                catalogue=(place.questions / name / folder.name / CATALOGUE_FILE).relative_to(place.root).as_posix(),
                catalogue_sha256=file_sha256(folder / CATALOGUE_FILE),
                **moment.vectors(),
                users=asked.counted["asked"],  # type: ignore[arg-type]  # a count
                items=catalogue.num_rows,
            )
            snapshot.write(folder / SNAPSHOT_FILE)


def _items_before(sources: Sources, moment: datetime) -> Snapshot:
    """Return the items, or their versions before a moment."""
    first = sources.lake[1]
    return first if not first.dataset.partitioned_by_event_date else first.within(None, moment)


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
    users = asked.questions.column(USER_ID.name).slice(0, len(asked.questions) // 2)
    seen = seen_before(connection, origin.moment, users)
    matrix = simple_lists.like_matrix(likes, ids)
    lists = simple_lists.write_lists(matrix, users.to_pylist(), seen, sources.settings.question_ease_items)
    pq.write_table(lists, folder / SIMPLE_LISTS_FILE, compression="zstd")


@dataclasses.dataclass(frozen=True, slots=True)
class _Moment:
    """What Spark computes as of one origin."""

    sources: Sources
    inputs: Inputs
    scratch: Path

    @classmethod
    def of(cls, sources: Sources, spark: SparkSession, origin: Origin, scratch: Path) -> _Moment:
        """Read the lake's tables once: every step goes over the same events, which lie in many small files."""
        events, items, users, *relations = (read_snapshot(spark, each) for each in sources.lake)
        known = events.where(F.col("event_time") < F.lit(origin.moment)).cache()
        return cls(sources, Inputs(sources.schema, known, items, users, origin.moment, None, *relations), scratch)

    def latest(self, name: str, asked: AskedUsers) -> pa.Table:
        """Return the rows of a group that holds the latest state only, of the asked users."""
        (group,) = (group for group in declared(self.sources.schema).groups if group.name == name)
        file = self.scratch / "asked.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(asked.questions.select([USER_ID.name]), file)
        wanted = self.inputs.events.sparkSession.read.parquet(str(file)).distinct()
        rows: DataFrame = compute(group, self.inputs).join(wanted, on=USER_ID.name, how="left_semi")
        columns = [USER_ID.name, "event_time", *(column.name for column in group.features)]
        return rows.select(*columns).toArrow()

    def vectors(self) -> dict[str, Any]:
        """Fit every kind of embedding on what was liked before, as dated snapshots; return the manifest's fields."""
        settings, place, cutoff = self.sources.settings, self.sources.place, self.inputs.cutoff
        kinds = embeddings_named(settings.embedding_names)
        asks = any(kind.side_information for kind in kinds)
        items = self.sources.lake[1]
        side = side_information(items.read(), self.sources.schema, cutoff) if asks else NOTHING_SAID
        liked = liked_events(self.inputs.known, self.sources.schema.positive)
        records = {}
        with exclusive(place.locks / "embeddings.lock", f"embeddings of namespace {place.name}"):
            for kind in kinds:
                often = liked_often(liked, kind.skip_gram.least_likes).cache()
                rows = fit_items_if_any(kind, often, side, self.scratch / kind.name)
                records[kind.name] = write_item_embeddings(place, kind, cutoff, rows)
                often.unpersist()
        return {
            "item_embeddings": {name: record.item_embeddings for name, record in records.items()},
            "item_embeddings_sha256": {name: record.sha256 for name, record in records.items()},
        }


@contextmanager
def _scratch(place: Namespace) -> Iterator[Path]:
    """Give a folder for what Spark writes; `questions.lock` is held, so whatever lies there a killed job left."""
    folder = place.root / ".questions"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
