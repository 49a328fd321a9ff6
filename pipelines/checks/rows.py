"""The rows of a stored table against the declared checks, by pandera on DuckDB (through ibis).

A table is looked at in chunks of whole partitions, so that memory is bounded whatever its size. No key reaches beyond a
chunk: those of events hold the time, and so never repeat across days; other tables are one partition.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import ibis
import pandera.ibis as pandera
from pandera.errors import SchemaError, SchemaErrorReason, SchemaErrors

from feature_repo.contracts.checks import Check, OneOf, Present, Range, Reference, Step, Type, Unique
from feature_repo.contracts.columns import FLOAT32_ERROR, Dtype
from pipelines.checks.outcomes import Outcome, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


_EXAMPLES = 3
_CELL_LENGTH = 60
_TYPES = {
    Dtype.STRING: ibis.dtype("string"),
    Dtype.INT64: ibis.dtype("int64"),
    Dtype.FLOAT32: ibis.dtype("float32"),
    Dtype.TIMESTAMP: ibis.dtype("timestamp('UTC', 6)"),
}
Condition = Any
"""An ibis expression that is true of the rows that are right: a column, or one truth for all of them."""


@dataclass(slots=True)
class Finding:
    """What the chunks of a table have shown of one check so far."""

    check: Check
    judged: int = 0
    """Rows looked at."""
    wrong: int = 0
    """Rows at fault; where no single row is, the chunks."""
    faults: list[str] = field(default_factory=list)
    """What was found instead, where no single row is at fault."""
    examples: list[str] = field(default_factory=list)
    not_judged: str = ""

    def outcome(self) -> Outcome:
        """Return what came of it."""
        if self.wrong:
            received = self.faults[0] if self.faults else f"{self.wrong:,} of {self.judged:,} rows"
            return Outcome(self.check, Status.FAILED, received, tuple(self.examples[:_EXAMPLES]))
        if self.not_judged:
            return Outcome(self.check, Status.NOT_JUDGED, self.not_judged)
        return Outcome(self.check, Status.PASSED, f"holds for {self.judged:,} rows")


def check_rows(
    checks: Sequence[Check], key: Sequence[str], chunks: Iterable[ibis.Table], others: Mapping[str, ibis.Table]
) -> list[Outcome]:
    """Judge one dataset.

    Args:
        checks: those of the dataset.
        key: the dataset's key, by which examples are named.
        chunks: its rows, in runs of whole partitions.
        others: dataset → table, for references.
    """
    findings = {check.name: Finding(check) for check in checks}
    for chunk in chunks:
        rows = chunk.count().to_pyarrow().as_py()
        failed = _failures(checks, _schema(checks, others), chunk)
        for finding in findings.values():
            finding.judged += rows
            if finding.check.column and finding.check.column not in chunk.columns:
                _note_missing(finding, chunk)
            elif finding.check.name in failed:
                _note_failure(finding, chunk, key, others, failed[finding.check.name])
    return [finding.outcome() for finding in findings.values()]


def _schema(checks: Sequence[Check], others: Mapping[str, ibis.Table]) -> pandera.DataFrameSchema:
    """Return the checks as pandera has them; each is found again by its name."""
    by_column: dict[str, list[Check]] = {}
    for check in checks:
        by_column.setdefault(check.column, []).append(check)
    whole_rows = by_column.pop("", [])
    return pandera.DataFrameSchema(
        columns={
            column: pandera.Column(
                nullable=not any(isinstance(check, Present) for check in some),
                checks=[_pandera_check(check, others) for check in some if not isinstance(check, Present)],
            )
            for column, some in by_column.items()
        },
        checks=[_pandera_check(check, others) for check in whole_rows],
    )


def _pandera_check(check: Check, others: Mapping[str, ibis.Table]) -> pandera.Check:
    holds = _condition(check, others)
    return pandera.Check(lambda data: holds(data.table, data.key), name=check.name, n_failure_cases=1, ignore_na=True)


def _condition(check: Check, others: Mapping[str, ibis.Table]) -> Callable[[ibis.Table, str], Condition]:  # noqa: PLR0911 - one for each kind
    """Return what must be true, given a table and a column's name."""
    match check:
        case Type():
            wanted = ibis.dtype(f"array<{_TYPES[check.dtype]}>") if check.is_list else _TYPES[check.dtype]
            return lambda table, column: _is_of_type(table[column].type(), wanted)
        case Present():
            return lambda table, column: _is_there(table[column])
        case Range():
            low, high = check.minimum, check.maximum
            return lambda table, column: (
                (ibis.literal(True) if low is None else table[column] >= low)  # noqa: FBT003 - ibis' own
                & (ibis.literal(True) if high is None else table[column] <= high)  # noqa: FBT003 - as above
            )
        case Step():
            return lambda table, column: _is_whole_number_of(table[column].cast("float64"), check.step)
        case OneOf():
            return lambda table, column: table[column].isin(check.values)
        case Reference():
            known = others[check.to]
            return lambda table, column: table[column].isin(known[check.key or column])
        case Unique():
            return lambda table, _: _repeated(table, check.key).count() == 0
        case _:
            msg = f"check {check.name}: nothing is known of how a {check.kind} is judged on rows"
            raise LookupError(msg)


def _is_there(value: Any) -> Condition:  # noqa: ANN401 - an ibis column
    """Tell whether there is a value; not-a-number is none, as pandera has it, too."""
    return value.notnull() & ~value.isnan() if value.type().is_floating() else value.notnull()


def _is_of_type(received: Any, wanted: Any) -> bool:  # noqa: ANN401 - ibis types
    """Compare types whatever they say of nulls, and of how finely a time is written."""
    if received.is_timestamp() and wanted.is_timestamp():
        return bool(received.timezone == wanted.timezone)
    if received.is_array() and wanted.is_array():
        return _is_of_type(received.value_type, wanted.value_type)
    return bool(received.copy(nullable=True) == wanted.copy(nullable=True))


def _is_whole_number_of(value: Any, step: float) -> Condition:  # noqa: ANN401 - an ibis column
    return (value - (value / step).round() * step).abs() <= value.abs() * FLOAT32_ERROR


def _repeated(table: ibis.Table, key: Sequence[str]) -> ibis.Table:
    """Return each key that occurs more than once, and how often."""
    return table.group_by(list(key)).aggregate(rows=table.count()).filter(lambda found: found["rows"] > 1)


def _failures(checks: Sequence[Check], schema: pandera.DataFrameSchema, chunk: ibis.Table) -> dict[str, SchemaError]:
    """Return check name → error, for every check that does not hold of a chunk."""
    present = {check.column: check.name for check in checks if isinstance(check, Present)}
    try:
        schema.validate(chunk, lazy=True)
    except SchemaErrors as errors:
        return {_name(error, present): error for error in errors.schema_errors}
    return {}


def _name(error: SchemaError, present: Mapping[str, str]) -> str:
    """Return the name of the check that an error is of; nulls are pandera's own business and have no check there."""
    if error.reason_code is SchemaErrorReason.SERIES_CONTAINS_NULLS:
        return present[str(error.schema.name)]
    return str(getattr(error.check, "name", error.check))


def _note_missing(finding: Finding, chunk: ibis.Table) -> None:
    if isinstance(finding.check, Type):
        finding.wrong += 1
        finding.faults.append(f"no such column among {', '.join(chunk.columns)}")
    else:
        finding.not_judged = "the column is missing"


def _note_failure(
    finding: Finding, chunk: ibis.Table, key: Sequence[str], others: Mapping[str, ibis.Table], error: SchemaError
) -> None:
    check = finding.check
    if error.reason_code is SchemaErrorReason.CHECK_ERROR:
        finding.not_judged = f"it could not be judged: {error}"
    elif isinstance(check, Type):
        finding.wrong += 1
        finding.faults.append(str(chunk[check.column].type()))
    elif isinstance(check, Unique):
        repeated = _repeated(chunk, check.key)
        finding.wrong += cast("int", (repeated["rows"].sum() - repeated.count()).to_pyarrow().as_py())
        finding.examples += _shown(repeated, check.key, check.key)
    else:
        wrong = chunk.filter(~_condition(check, others)(chunk, check.column))
        finding.wrong += wrong.count().to_pyarrow().as_py()
        finding.examples += _shown(wrong, key, [*key, check.column])


def _shown(rows: ibis.Table, order: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return the first few rows, in order of `order`, as people read them."""
    names = [name for name in dict.fromkeys(columns) if name in rows.columns]
    first = rows.order_by([name for name in order if name in rows.columns]).select(names).limit(_EXAMPLES)
    return [", ".join(f"{name} {_cell(row[name])}" for name in names) for row in first.to_pyarrow().to_pylist()]


def _cell(value: object) -> str:
    text = str(value)
    return text if len(text) <= _CELL_LENGTH else text[: _CELL_LENGTH - 1] + "…"
