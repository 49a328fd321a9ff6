"""Items and users, row by row: these files are small (32M has 88 thousand items), and clarity is worth the loop."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pyarrow as pa

from feature_repo.contracts.datasets import items_dataset, users_dataset
from feature_repo.contracts.ids import ID_MEANING, cut, is_id
from pipelines.checks.refusals import Refusal, refusal_table
from pipelines.checks.whole_file import cut_line
from pipelines.io.arrow import arrow_schema
from pipelines.sources.adapter import CheckedTable
from pipelines.sources.layout import FileFormat, RowError
from pipelines.sources.lines import UNDECODABLE, read_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from feature_repo.contracts.datasets import Dataset
    from feature_repo.contracts.schemas import Schema
    from pipelines.sources.archive import SourceFile
    from pipelines.sources.layout import Row

_WHOLE_LINE = ""
"""The column of a refusal that is about no single one."""


def check_items(
    file: SourceFile, form: FileFormat, read: Callable[[Sequence[str]], Row], schema: Schema
) -> CheckedTable:
    """Read and check the items of a source."""
    return _check(file, form, read, items_dataset(schema), "duplicate_item")


def check_users(
    file: SourceFile, form: FileFormat, read: Callable[[Sequence[str]], Row], schema: Schema
) -> CheckedTable:
    """Read and check the users of a source."""
    return _check(file, form, read, users_dataset(schema), "duplicate_user")


def _check(
    file: SourceFile, form: FileFormat, read: Callable[[Sequence[str]], Row], dataset: Dataset, duplicate: str
) -> CheckedTable:
    accepted: dict[str, Row] = {}
    refused: list[Refusal] = []
    rows = 0
    key = dataset.key[0]
    for batch in read_lines(file, form):
        rows += batch.num_rows
        for line, text in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
            try:
                row = read(_fields(text, form))
                identity = _new_identity(cut(str(row[key])), accepted, form.columns[0], duplicate)
            except RowError as error:
                refused.append(Refusal(file.name, line, error.column, error.reason, error.expected, error.received))
            else:
                accepted[identity] = row | {key: identity}
    table = pa.Table.from_pylist(list(accepted.values()), schema=arrow_schema(dataset))
    return CheckedTable(table, refusal_table(refused), {file.name: rows})


def _new_identity(identity: str, known: Collection[str], column: str, duplicate: str) -> str:
    if not identity:
        raise RowError(column, "missing_field", "an id", identity)
    if not is_id(identity):
        raise RowError(column, "bad_id", ID_MEANING, identity)
    if identity in known:
        raise RowError(column, duplicate, "one line for each id; the first is kept", identity)
    return identity


def _fields(text: str, form: FileFormat) -> list[str]:
    if UNDECODABLE in text:
        raise RowError(_WHOLE_LINE, "undecodable_bytes", f"{form.encoding.upper()} text", text)
    try:
        fields = cut_line(text, form)
    except csv.Error as error:
        raise RowError(_WHOLE_LINE, "bad_quotes", f"quotes that close ({error})", text) from error
    if len(fields) < len(form.columns):
        raise RowError(form.columns[len(fields)], "missing_field", f"{len(form.columns)} fields", text)
    if len(fields) > len(form.columns):
        raise RowError(_WHOLE_LINE, "too_many_fields", f"{len(form.columns)} fields", text)
    return fields
