"""Refused rows: where each stood, why, and when there are too many of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contracts.datasets import QUARANTINE
from pipelines.checks.remedies import remedy
from pipelines.errors import QuarantineLimitError
from pipelines.io.arrow import arrow_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RECEIVED_LENGTH = 200
_REASONS_SHOWN = 3
_FILES_TOLD = 10
_LEAST = 5
_LARGEST_SHARE = 0.1
_LOOKED_AT = 1000
"""So many refused rows of a reason tell its remedy."""


class Refusal(NamedTuple):
    """One row of the quarantine dataset."""

    file: str
    line: int
    column: str
    reason: str
    expected: str
    received: str


def refusal_table(refusals: Iterable[Refusal]) -> pa.Table:
    """Return refusals as rows of the quarantine dataset."""
    rows = [{**refusal._asdict(), "received": refusal.received[:RECEIVED_LENGTH]} for refusal in refusals]
    return pa.Table.from_pylist(rows, schema=arrow_schema(QUARANTINE))


def check_limit(rows: Mapping[str, int], refused: pa.Table, limit: float, *, is_mapped: bool) -> None:
    """Raise QuarantineLimitError where more than the share `limit` of a file's rows was refused.

    In a small file a few rows are a large share: up to five may be refused as long as they are no more than a tenth,
    unless the limit is 0.

    Args:
        rows: file → how many rows it has.
        refused: rows of the quarantine dataset.
        limit: the largest share.
        is_mapped: whether the source has a mapping, whose keys may be the remedy.
    """
    if refused.num_rows:
        for file, number in rows.items():
            of_file = refused.filter(pc.equal(refused.column("file"), file))
            few = min(_LEAST, _LARGEST_SHARE * number) if limit else 0
            if of_file.num_rows > max(limit * number, few):
                msg = _too_many(file, number, of_file, limit, is_mapped=is_mapped)
                raise QuarantineLimitError(msg, rows, refused, limit)


def told_of(refused: pa.Table, *, is_mapped: bool) -> list[str]:
    """Return a line for each file with refused rows that were not too many: how many, and the first of each reason."""
    files = sorted(set(refused.column("file").to_pylist()))
    told = [
        _refused(file, refused.filter(pc.equal(refused.column("file"), file)), is_mapped=is_mapped)
        for file in files[:_FILES_TOLD]
    ]
    if others := len(files) - len(told):
        told.append(f"refused rows of further files: {others:,} files, all in the lake's quarantine")
    return told


def _refused(file: str, refused: pa.Table, *, is_mapped: bool) -> str:
    examples = _examples(refused, is_mapped=is_mapped)
    return f"{file}: rows refused: {refused.num_rows:,}, kept in the lake's quarantine. {examples}"


def _examples(refused: pa.Table, *, is_mapped: bool) -> str:
    reasons = Counter(refused.column("reason").to_pylist()).most_common(_REASONS_SHOWN)
    return " ".join(_example(refused, reason, count, is_mapped=is_mapped) for reason, count in reasons)


def _too_many(file: str, rows: int, refused: pa.Table, limit: float, *, is_mapped: bool) -> str:
    return (
        f"{file}: {refused.num_rows:,} of {rows:,} rows refused ({refused.num_rows / rows:.2%}), "
        f"the limit is {limit:.2%} (KESTREL_QUARANTINE_LIMIT). "
        f"{_examples(refused, is_mapped=is_mapped)} "
        "Otherwise mend the file, or raise the limit if these rows may be lost."
    )


def _example(refused: pa.Table, reason: str, count: int, *, is_mapped: bool) -> str:
    rows = refused.filter(pc.equal(refused.column("reason"), reason)).sort_by("line")
    first = Refusal(**rows.slice(0, 1).to_pylist()[0])
    column = f", column {first.column!r}" if first.column else ""
    where = f"{reason}: {count:,}, first in line {first.line}{column}"
    advice = remedy(reason, rows.slice(0, _LOOKED_AT).column("received").to_pylist()) if is_mapped else ""
    return f"{where}: expected {first.expected}, received {first.received!r}{advice and '; '}{advice}."
