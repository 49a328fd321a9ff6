"""Items and users of a mapping's own files, checked in DuckDB: whole columns at a time, whatever the file's size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

from feature_repo.contracts.ids import ID_MEANING
from pipelines.checks.attributes import attribute_checks
from pipelines.checks.checked_parts import checked_table, judge_parts
from pipelines.checks.judging import FAULT, is_no_id, named
from pipelines.io.sql_text import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from feature_repo.contracts.datasets import Dataset
    from feature_repo.contracts.schemas import Attribute
    from pipelines.checks.judging import Check
    from pipelines.sources.adapter import CheckedTable, TypedPart

_MEMORY = "1GB"


def check_entities(
    dataset: Dataset, attributes: Sequence[Attribute], parts: Sequence[TypedPart], names: Mapping[str, str]
) -> CheckedTable:
    """Read and check the files of `dataset`; `names` says in which column id and attributes are."""
    checks = _checks(attributes, names)
    (key,) = dataset.key
    others = [identifier(name) for name in dataset.column_names if name != key]
    with duckdb.connect(config={"memory_limit": _MEMORY}) as database:
        judge_parts(database, parts, checks, [f"_id AS {key}", *others])
        database.execute(
            _REFUSE_REPEATED.format(
                key=key, column=literal(names["id"]), duplicate=literal(f"duplicate_{key.removesuffix('_id')}")
            )
        )
        passed = f"SELECT {key}, {', '.join(others)} FROM checked WHERE _reason IS NULL"  # noqa: S608 - a contract's columns
        return checked_table(database, parts, dataset, passed)


def _checks(attributes: Sequence[Attribute], names: Mapping[str, str]) -> list[Check]:
    return [
        FAULT,
        named("missing_field", "coalesce(_id, '') = ''", names["id"], "an id", "_id_text"),
        named("bad_id", is_no_id("_id"), names["id"], ID_MEANING, "_id_text"),
        *(
            check
            for attribute in attributes
            for check in attribute_checks(attribute, attribute.name, names[attribute.name])
        ),
    ]


_REFUSE_REPEATED = """
UPDATE checked SET _reason = {duplicate}, _fault_column = {column}, _received = {key},
    _expected = 'one row for each id; the first is kept'
WHERE (_part, _line) IN (
    SELECT (_part, _line) FROM (
        SELECT _part, _line, row_number() OVER (PARTITION BY {key} ORDER BY _part, _line) AS _nth
        FROM checked WHERE _reason IS NULL
    ) WHERE _nth > 1
)
"""
