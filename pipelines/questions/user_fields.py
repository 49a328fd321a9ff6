"""What Redis would hold of the asked users at the moment of each question, in bytes: nothing is materialised for it.

Groups that are joined to labels are joined to questions in the same way: the latest row strictly before the moment. The
groups that only the online store has (`Freshness.LATEST`) are as of the origin, computed by the transform that
computes them every night.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contracts.datasets import EVENT_TIME, USER_ID
from feature_repo.contracts.features import Declared, FeatureGroup, Freshness
from feature_repo.contracts.questions import ASKED_TIME, QUESTION_ID, USER_FIELDS
from pipelines.feast_store.online_writes import feature_field, time_field
from pipelines.feast_store.point_in_time import AsOfJoin, point_in_time_sql
from pipelines.feast_store.tables import FeatureTable
from pipelines.feast_store.value_bytes import time_bytes, value_bytes
from pipelines.io.arrow import arrow_type, conform

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import duckdb

    from feature_repo.contracts.places import Namespace

_LABELS = "questions_asked"


def joined_groups(features: Declared) -> tuple[FeatureGroup, ...]:
    """Return the groups of users in Redis whose rows are known as of any moment."""
    return tuple(group for group in features.users if group.freshness is not Freshness.LATEST)


def latest_groups(features: Declared) -> tuple[FeatureGroup, ...]:
    """Return the groups of users in Redis that are computed as of a cutoff, and for it alone."""
    return tuple(group for group in features.users if group.freshness is Freshness.LATEST)


def user_fields(
    connection: duckdb.DuckDBPyConnection,
    place: Namespace,
    features: Declared,
    questions: pa.Table,
    latest: Mapping[str, pa.Table],
) -> pa.Table:
    """Return the rows of USER_FIELDS: a field that Redis would not have has no row.

    Args:
        connection: A DuckDB session.
        place: Where the feature tables lie.
        features: The namespace's feature groups.
        questions: Rows of QUESTIONS.
        latest: Group of `latest_groups` → its rows as of the origin, of the asked users.
    """
    groups = [group for group in joined_groups(features) if FeatureTable.of_group(place, group).files]
    known = _as_of(connection, place, groups, questions)
    parts = [part for group in groups for part in _fields(known, group)]
    for group in latest_groups(features):
        rows = _of_questions(questions, latest[group.name], group)
        parts.extend(_fields(rows, group))
    return conform(pa.concat_tables(parts), USER_FIELDS)


def _as_of(
    connection: duckdb.DuckDBPyConnection, place: Namespace, groups: Sequence[FeatureGroup], questions: pa.Table
) -> pa.Table:
    """Return question_id, each group's event time and its features; null where the group has no row."""
    joins = [
        AsOfJoin(
            FeatureTable.of_group(place, group),
            {USER_ID.name: USER_ID.name},
            {column.name: column.name for column in group.features} | {EVENT_TIME.name: group.time_column.name},
            ttl_us=0,
        )
        for group in groups
    ]
    connection.register(_LABELS, questions.select([QUESTION_ID.name, USER_ID.name, ASKED_TIME.name]))
    table = connection.sql(point_in_time_sql(_LABELS, ASKED_TIME.name, joins, QUESTION_ID.name)).to_arrow_table()
    connection.unregister(_LABELS)
    return table


def _of_questions(questions: pa.Table, rows: pa.Table, group: FeatureGroup) -> pa.Table:
    """Return question_id, the group's event time and features for every question whose user has a row."""
    places = pc.index_in(questions.column(USER_ID.name), value_set=rows.column(USER_ID.name).combine_chunks())
    has = pc.is_valid(places)
    chosen = rows.take(places.filter(has))
    names = [column.name for column in group.features]
    return pa.table(
        [questions.column(QUESTION_ID.name).filter(has), chosen.column(EVENT_TIME.name), *map(chosen.column, names)],
        names=[QUESTION_ID.name, group.time_column.name, *names],
    )


def _fields(rows: pa.Table, group: FeatureGroup) -> Iterable[pa.Table]:
    """Yield the fields of one group: the row's time, then its features; a null has no bytes, as in Redis."""
    times = rows.column(group.time_column.name)
    present = pc.is_valid(times)
    ids = rows.column(QUESTION_ID.name).filter(present).combine_chunks()
    stamps = times.filter(present).combine_chunks().cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    yield _table(ids, time_field(group.view_name), time_bytes(stamps))
    for column in group.features:
        values = rows.column(column.name).filter(present).combine_chunks().cast(arrow_type(column))
        yield _table(ids, feature_field(group.view_name, column.name), value_bytes(values))


def _table(ids: pa.Array, field: bytes, stored: pa.Array) -> pa.Table:
    fields = pa.repeat(pa.scalar(field, pa.binary()), len(ids))
    return pa.table([ids, fields, stored], names=list(USER_FIELDS.column_names))
