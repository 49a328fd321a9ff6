"""Whether a source is of the data set that the lake holds.

A part is read as the lake's rows were: by its schema, and what decides how rows are read. A whole may be read in
another way; that it is of the same data set is seen by what it has in common with the lake.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.publishing import read_json, write_json
from feature_repo.contracts.schemas import LIKED_ITEMS, Attribute, read_schema, write_schema
from pipelines.errors import SourceError
from pipelines.io.lake import is_intact, partition_day, partition_file, partition_name, stored_dataset
from pipelines.io.sql_text import literal, parquet

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import duckdb

    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema
    from pipelines.io.lake import Partition
    from pipelines.sources.adapter import Source
    from pipelines.stream.merge import Streamed

_LOG = logging.getLogger(__name__)
_SHOWN = 600
_LEAST_IN_COMMON = 0.2
"""Of the smaller side's rows. A new export has nearly all of the old one's; two data sets meet by chance."""
_MOST_DAYS = 60
"""So many days of the lake are compared: enough to tell, whatever its size."""
_IDS = {"user": "user_id", "item": "item_id"}
"""Who and what an event is of, as a mapping calls it, and as it is compared."""
_WHEN = "second"


def keep_meaning(place: Namespace, source: Source) -> None:
    """Write down what the namespace's rows are from now on; nothing is written where it is already."""
    record = dict(source.meaning)
    if not place.reading.is_file() or read_json(place.reading) != record:
        write_json(place.reading, record)
    write_schema(place, source.schema)


def check_same_data_set(place: Namespace, source: Source) -> None:
    """Refuse a part of another data set than the one that the lake holds, or one that is read in another way.

    Rows of one event that are read in two ways, in two zones for instance, are two events: merging would corrupt both.

    Raises:
        SourceError: it names what differs.
    """
    if not place.schema.exists():
        _LOG.warning("namespace %s: there was nothing before this part; is the name right?", place.name)
        return
    differences = _differences(_stored_as(read_schema(place)), _stored_as(source.schema))
    if not differences:
        held = read_json(place.reading) if place.reading.exists() else {"reading": "unknown, of an earlier version"}
        differences = _differences(dict(_leaves(held)), dict(_leaves(source.meaning)))
    if differences:
        msg = (
            f"namespace {place.name}: expected a part of the data set that was ingested, received one of another, or "
            f"one that is read in another way ({source.name}): {'; '.join(differences)[:_SHOWN]}. Take the mapping "
            "of that ingestion, or another namespace; to change the mapping, ingest the whole anew (--mode whole)"
        )
        raise SourceError(msg)


def check_same_whole(place: Namespace, source: Source, events: duckdb.DuckDBPyRelation, streamed: Streamed) -> None:
    """Refuse a whole of another data set than the one that the lake holds.

    The same data set, read in another way, is welcome: only what is read as before is compared, and two of user, item
    and time at least. On days that both have, a fifth of the rows of the smaller side has to be in both; where there is
    no such day, of its users and of its items.

    Args:
        place: the namespace.
        source: what is being ingested.
        events: its rows that passed: user_id, item_id, micros.
        streamed: what came by the stream, which no source need have.

    Raises:
        SourceError: it says what the lake holds, and what was received.
    """
    table = stored_dataset(place, EVENTS)
    table.finish()
    partitions = table.partitions
    if not any(part.rows for part in partitions.values()):
        return
    held: Mapping[str, Any] = read_json(place.reading) if place.reading.exists() else {}
    received: Mapping[str, Any] = source.meaning
    was, becomes = held.get("events", {}), received.get("events", {})
    ids = [column for field, column in _IDS.items() if was.get(field) == becomes.get(field)]
    lake = _Lake(table.folder, partitions, streamed)
    shares = [
        lake.share_of_days(rows, known)
        for rows in _read_in_time(events, was, becomes)
        for known in ([ids] if len(ids) == 1 else []) + [list(_IDS.values())]
    ]
    if len(ids) == len(_IDS) and was.get("time") != becomes.get("time"):
        shares.append(lake.share(events, lake.files(partitions), ids))
    if all(share is None for share in shares) and held == dict(received):
        shares = [min(lake.share(events, lake.files(partitions), [column]) or 0.0 for column in _IDS.values())]
    files = lake.files(partitions)
    if files and max((share or 0.0 for share in shares), default=0.0) < _LEAST_IN_COMMON:
        is_told = len(ids) + (was.get("time") == becomes.get("time")) < _COMPARED
        _refuse_another(place, source, events, partitions, files, _ONE_BY_ONE * is_told)


def _read_in_time(
    events: duckdb.DuckDBPyRelation, was: Mapping[str, Any], becomes: Mapping[str, Any]
) -> Iterator[duckdb.DuckDBPyRelation]:
    """Yield a source's rows, and the same in the zone of before, where nothing else of their time has changed."""
    yield events
    before, now = was.get("time"), becomes.get("time")
    if before and now and before != now and {**before, "zone": now["zone"]} == now:
        local = f"timezone({literal(now['zone'])}, make_timestamptz(micros))"
        yield events.project(f"user_id, item_id, epoch_us(timezone({literal(before['zone'])}, {local})) AS micros")


@dataclass(frozen=True, slots=True)
class _Lake:
    """The events that a namespace holds, of which some days are compared."""

    folder: Path
    partitions: Mapping[str, Partition]
    streamed: Streamed

    def files(self, names: Iterable[str]) -> list[Path]:
        """Return files of some of the named partitions, evenly chosen; what is damaged tells nothing."""
        listed = list(names)
        step = max(1, -(-len(listed) // _MOST_DAYS))
        chosen = {name: partition_file(self.folder, name) for name in listed[::step]}
        return [file for name, file in chosen.items() if is_intact(file, self.partitions[name])]

    def share_of_days(self, events: duckdb.DuckDBPyRelation, ids: Sequence[str]) -> float | None:
        """Return the share by ids and time, of days that both have."""
        days = {partition_name(day) for (day,) in events.query("source", _DAYS).fetchall()}
        both = [name for name in self.partitions if name in days]
        others = [
            file
            for name in both
            if name in self.streamed.names and (file := partition_file(self.streamed.folder, name))
        ]
        return self.share(events, self.files(both), [*ids, _WHEN], others)

    def share(
        self,
        events: duckdb.DuckDBPyRelation,
        files: Sequence[Path],
        columns: Sequence[str],
        others: Collection[Path] = (),
    ) -> float | None:
        """Return which share of the smaller side's rows, by these columns, is in both; None where one side has none.

        Of the source, rows of the days of `files` count, where the time does; of the lake, rows that are not in
        `others`. Two columns have much in common by chance where few users, items or times make many rows. What
        would be in both if those of the lake were dealt anew is taken off the share: nothing is left of two data
        sets, and all of one.
        """
        if not files:
            return None
        listed = ", ".join(columns)
        lake = f"SELECT *, epoch_us(event_time) // 1_000_000 AS second FROM {parquet(files)} AS stored"  # noqa: S608 - quoted
        lake += f" ANTI JOIN {parquet(others)} AS came USING ({', '.join(EVENTS.key)})" if others else ""
        of_days = "WHERE second // 86_400 IN (SELECT second // 86_400 FROM lake)" if _WHEN in columns else ""
        dealt = _DEALT.format(columns[0], columns[1]) if len(columns) == _COMPARED else "SELECT NULL LIMIT 0"
        query = f"""
            WITH lake AS ({lake}), source_rows AS (SELECT *, micros // 1_000_000 AS second FROM source),
            theirs AS MATERIALIZED (SELECT DISTINCT {listed} FROM lake),
            ours AS MATERIALIZED (SELECT DISTINCT {listed} FROM source_rows {of_days})
            SELECT (SELECT count(*) FROM theirs), (SELECT count(*) FROM ours),
                (SELECT count(*) FROM theirs JOIN ours USING ({listed})), (SELECT count(*) FROM ({dealt}))"""  # noqa: S608 - quoted
        ((theirs, ours, both, by_chance),) = events.query("source", query).fetchall()
        possible = min(theirs, ours) - by_chance
        return (both - by_chance) / possible if possible > 0 else 0.0 if theirs and ours else None


_COMPARED = 2
_DEALT = """
SELECT * FROM (SELECT {0}, row_number() OVER (ORDER BY hash({0}, {1}), {0}, {1}) AS place FROM theirs)
JOIN (SELECT {1}, row_number() OVER (ORDER BY hash({1}, {0}), {0}, {1}) AS place FROM theirs) USING (place)
JOIN ours USING ({0}, {1})
"""
_DAYS = "SELECT DISTINCT CAST(make_timestamp(micros) AS DATE) FROM source"
_SAMPLE = "SELECT user_id, item_id FROM {rows} ORDER BY hash(user_id, item_id) LIMIT 1"
_ONE_BY_ONE = (
    ". If it is the same one, of which more than one of events.user, events.item and events.time is read in another "
    "way, change them one at a time, and ingest after each"
)


def _refuse_another(  # noqa: PLR0917 - all that is told
    place: Namespace,
    source: Source,
    events: duckdb.DuckDBPyRelation,
    partitions: Mapping[str, Partition],
    files: Sequence[Path],
    remedy: str,
) -> NoReturn:
    names = sorted(partitions)
    held = sum(part.rows for part in partitions.values())
    ((rows, first, last),) = events.query(
        "source", "SELECT count(*), make_timestamp(min(micros)), make_timestamp(max(micros)) FROM source"
    ).fetchall()
    their_user, their_item = events.query("source", _SAMPLE.format(rows=parquet(files))).fetchall()[0]
    user, item = events.query("source", _SAMPLE.format(rows="source")).fetchall()[0]
    msg = (
        f"namespace {place.name}: expected the data set that it holds ({held:,} events of {partition_day(names[0]):%F} "
        f"to {partition_day(names[-1]):%F}, one of user {their_user!r} and item {their_item!r}), received what has "
        f"next to nothing in common with it ({source.name}: {rows:,} events of {first:%F} to {last:%F}, one of user "
        f"{user!r} and item {item!r}). Take another namespace; or, to put this data set in the place of that one, "
        f"what came by its stream included, --mode replace{remedy}"
    )
    raise SourceError(msg)


def _stored_as(schema: Schema) -> dict[str, Any]:
    """Return what decides on what is stored: what is made of it, and how models read it, may change with any part."""
    return dataclasses.replace(
        schema,
        item_attributes=tuple(map(Attribute.read_by_default, schema.item_attributes)),
        user_attributes=tuple(map(Attribute.read_by_default, schema.user_attributes)),
        liked_items=LIKED_ITEMS,
    ).to_json()


def _differences(held: Mapping[str, object], received: Mapping[str, object]) -> list[str]:
    names = (name for name in {**held, **received} if held.get(name) != received.get(name))
    return [f"{name}: {held.get(name)} there, {received.get(name)} here" for name in names]


def _leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """Yield 'events.time.zone' → 'UTC', and so on."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield ".".join(path), value
        return
    for key, each in inner:
        yield from _leaves(each, (*path, str(key)))
