"""Whether a part is one of the data set that the lake holds: its schema, and what decides how rows are read."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.publishing import read_json, write_json
from feature_repo.contracts.schemas import Attribute, read_schema, write_schema
from pipelines.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema
    from pipelines.sources.adapter import Source

_LOG = logging.getLogger(__name__)
_SHOWN = 600


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


def _stored_as(schema: Schema) -> dict[str, Any]:
    """Return what decides on what is stored: how models read it may change with any part."""
    return dataclasses.replace(
        schema,
        item_attributes=tuple(map(Attribute.read_by_default, schema.item_attributes)),
        user_attributes=tuple(map(Attribute.read_by_default, schema.user_attributes)),
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
