"""Contracts and examples → Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.columns import Column, Curve, Encoding
from feature_repo.contracts.features import FeatureGroup, Freshness, declared
from feature_repo.contracts.on_demand import on_demand
from pipelines.feature_page.example_log import CUTOFF, ENTITIES, SCHEMA, example_inputs
from pipelines.features.groups import compute

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyspark.sql import SparkSession

COMMAND = "python -m pipelines feature-page"
_FRESHNESS = {
    Freshness.PER_EVENT: "after each event, one row for each second",
    Freshness.DAILY: "one row for each day on which a figure changes, complete at its end",
    Freshness.STATIC: "with each refresh, valid for all time",
    Freshness.LATEST: "with each refresh, as of its cutoff; online only",
}
_LONGEST = 4
"""Values of a list that are shown."""


def render(spark: SparkSession) -> str:
    """Return the page. Examples are computed by the transforms that compute the features."""
    inputs = example_inputs(spark)
    groups = declared(SCHEMA).groups
    sections = [line for group in groups for line in _section(group, _example(group, inputs))]
    count = sum(len(group.features) for group in groups)
    return "\n".join(
        [*_HEAD.format(count=count, groups=len(groups), command=COMMAND).splitlines(), *sections, *_on_demand(), ""]
    )


_HEAD = """\
# Features

<!-- Written by `{command}`; a test compares it with the contracts. -->
All {count} features in {groups} groups, as `feature_repo/contracts/features.py` declares them for the schema of
MovieLens; another data set has those that its own attributes give rise to. Examples are of the user *ann* and the item
*heat* in the small log of `pipelines/feature_page/example_log.py`, computed by the same transforms. *Encoding* is what
the model's graph does to the value, with parameters fitted on train rows."""


def _example(group: FeatureGroup, inputs: object) -> Mapping[str, object]:
    """Return the latest row of the example's user or item; LookupError where the log leaves it without one."""
    key = group.entity.name
    rows = compute(group, inputs).where(F.col(key) == ENTITIES[key]).orderBy(F.desc("event_time")).limit(1).collect()  # type: ignore[arg-type] # Spark ships no types
    if not rows:
        msg = f"feature group {group.name}: expected a row of {key} {ENTITIES[key]!r} before {CUTOFF}, received none"
        raise LookupError(msg)
    example: Mapping[str, object] = rows[0].asDict()
    return example


def _section(group: FeatureGroup, example: Mapping[str, object]) -> Iterator[str]:
    lifetime = f"{group.ttl_days} days" if group.ttl_days else "no end"
    parameters = ", ".join(f"{name} {value}" for name, value in group.parameters.items())
    yield from ("", f"## {group.name}", "", f"{group.meaning}.", "")
    yield f"Of: `{group.entity.name}` · from: {group.source} · fresh: {_FRESHNESS[group.freshness]} ·"
    yield f"lifetime: {lifetime} · owner: {group.owner}" + (f" · parameters: {parameters}" if parameters else "")
    yield from ("", "| feature | type | meaning | window | encoding | example |", "|---|---|---|---|---|---|")
    for column in group.features:
        cells = (
            f"`{column.name}`",
            _type(column),
            column.meaning,
            column.window or group.window,
            _encoding(column),
            f"`{_shown(example[column.name])}`",
        )
        yield f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _type(column: Column) -> str:
    if column.length == 0:
        return column.dtype.value
    return f"list of {column.dtype.value}" if column.length < 0 else f"list of {column.length} {column.dtype.value}"


def _encoding(column: Column) -> str:
    """Return how the graph reads a column, in the order in which it is done."""
    if column.encoding is Encoding.NONE:
        return "as it is"
    name = column.encoding.value.replace("_", " ")
    vocabulary = f" *{column.vocabulary}*" if column.vocabulary else ""
    first = "" if column.curve is Curve.LINEAR else f"{column.curve.value}, then "
    return f"{first}{name}{vocabulary}"


def _on_demand() -> Iterator[str]:
    """Say what is computed with the request."""
    yield from (
        "",
        "## With the request",
        "",
        "Computed in the models' graphs from their raw inputs; nothing is stored.",
    )
    yield from ("", "| feature | meaning | computed from |", "|---|---|---|")
    for feature in on_demand(SCHEMA):
        inputs = ", ".join(f"`{name}`" for name in feature.inputs)
        yield f"| `{feature.name}` | {_cell(feature.meaning)} | {inputs} |"


def _shown(value: object) -> str:
    """Return a value as people read it: six digits, long lists cut."""
    if isinstance(value, list):
        more = ", …" if len(value) > _LONGEST else ""
        return "[" + ", ".join(map(_shown, value[:_LONGEST])) + more + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return repr(value) if isinstance(value, str) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
