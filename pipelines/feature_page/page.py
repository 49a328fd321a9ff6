"""Contracts and examples → Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.columns import Column, Curve, Encoding
from feature_repo.contracts.embeddings import EMBEDDING_GROUPS
from feature_repo.contracts.features import FeatureGroup, Freshness, declared
from feature_repo.contracts.on_demand import on_demand
from pipelines.feature_page.example_log import SCHEMA, example_inputs
from pipelines.feature_page.examples import request_examples, stored_examples
from pipelines.feature_page.request import ENCODINGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyspark.sql import SparkSession

COMMAND = "python -m pipelines feature-page"
COLUMNS = ("feature", "type", "meaning", "source", "window", "fresh", "owner", "encoding", "example")
"""What is told of every feature."""
_FRESHNESS = {
    Freshness.PER_EVENT: "event",
    Freshness.DAILY: "day",
    Freshness.STATIC: "refresh",
    Freshness.LATEST: "refresh",
}
_LONGEST = 4
"""Values of a list that are shown."""
_SHOWN_LETTERS = 24
"""Letters of a text that are shown."""


def render(spark: SparkSession) -> str:
    """Return the page. Examples are computed by the transforms that compute the features."""
    inputs = example_inputs(spark)
    groups = (*declared(SCHEMA).groups, *EMBEDDING_GROUPS)
    stored = stored_examples(inputs)
    sections = [line for group in groups for line in _section(group, stored)]
    requests = list(_on_demand(request_examples(inputs, stored)))
    count = sum(len(group.features) for group in groups) + len(on_demand(SCHEMA))
    head = _HEAD.format(count=count, groups=len(groups), command=COMMAND).splitlines()
    return "\n".join([*head, *sections, *requests, ""])


_HEAD = """\
# Features

<!-- Written by `{command}`; a test compares it with the contracts. -->
All {count} features: those of {groups} groups, as `features.py` and `embeddings.py` of `feature_repo/contracts` declare
them for the schema of MovieLens, were it known who follows whom, and those of the request (`on_demand.py`). Another
data set has those that its own attributes give rise to; without relations there is no `user_relations`, `user_circle`.

- **source**: the tables, or the raw inputs, that it is computed from.
- **window**: what the value looks back on.
- **fresh**: when there is a new value. *event*: a row for each time of an event; *day*: one for each day on which a
  figure changes, complete at its end; *refresh*: with each refresh; *request*: with each request. Online, what is of an
  event or a day comes with a refresh; where *stream* is said, a moment after the event.
- **owner**: the plane that answers for it, and what of it writes the values.
- **encoding**: what the model's graph does to the value, with parameters fitted on the train rows of the training sets
  that hold it.
- **example**: of the user *ann* and the item *heat* in the small log of `pipelines/feature_page/example_log.py`, at a
  request on the midnight after it, computed by the same transforms. Vectors are fitted on that log without the least
  numbers of likes and edges; the checksums of their snapshots are made up."""


def _section(group: FeatureGroup, examples: Mapping[str, object]) -> Iterator[str]:
    lifetime = f"{group.ttl_days} days" if group.ttl_days else "no end"
    parameters = ", ".join(f"{name} {value}" for name, value in group.parameters.items())
    services = [service.name for service in declared(SCHEMA).services if group in service.groups]
    yield from ("", f"## {group.name}", "", f"{group.meaning}.", "")
    yield f"Of: `{group.entity.name}` · in training sets of: {', '.join(services) or 'none, online only'} ·"
    yield f"lifetime: {lifetime}" + (f" · parameters: {parameters}" if parameters else "")
    yield from _table_head()
    for column in group.features:
        yield _row(
            column.name,
            _type(column),
            column.meaning,
            group.source,
            column.window or group.window,
            _FRESHNESS[group.freshness] + (", stream" if group.streamed else ""),
            group.owner,
            _encoding(column) if services else "none: no model reads it",
            _shown(examples[column.name]),
        )


def _table_head() -> Iterator[str]:
    yield from ("", f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS))


def _row(name: str, *cells: str) -> str:
    """Return a line of the table: the name and the example, which is the last cell, are code."""
    return f"| {' | '.join(_cell(cell) for cell in (f'`{name}`', *cells[:-1], f'`{cells[-1]}`'))} |"


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


def _on_demand(examples: Mapping[str, object]) -> Iterator[str]:
    """Say what is computed with the request."""
    yield from ("", "## With the request", "")
    yield "Computed in the models' graphs from their raw inputs; nothing is stored. Each model says which it reads."
    yield from _table_head()
    for feature in on_demand(SCHEMA):
        yield _row(
            feature.name,
            feature.dtype.value,
            feature.meaning,
            ", ".join(feature.inputs),
            feature.window,
            "request",
            feature.owner,
            ENCODINGS[feature.computation],
            _shown(examples[feature.name]),
        )


def _shown(value: object) -> str:
    """Return a value as people read it: six digits, long lists and texts cut."""
    if isinstance(value, list):
        more = ", …" if len(value) > _LONGEST else ""
        return "[" + ", ".join(map(_shown, value[:_LONGEST])) + more + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN_LETTERS else value[:_SHOWN_LETTERS] + "…")
    return str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
