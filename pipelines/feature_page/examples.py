"""What each feature is in the example's log: computed, fitted or worked out as the jobs and the graphs do."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.embeddings import EMBEDDINGS, VECTOR, Embedding
from feature_repo.contracts.features import LAST_ITEMS, declared
from feature_repo.contracts.on_demand import REQUEST_TIME, on_demand
from pipelines.embeddings.kinds import fit
from pipelines.embeddings.likes import liked_events
from pipelines.embeddings.side_information import side_information
from pipelines.embeddings.user_vectors import last_liked
from pipelines.feature_page.example_log import CUTOFF, ENTITIES
from pipelines.feature_page.request import value_at_request
from pipelines.features.groups import compute
from pipelines.io.scratch import scratch_folder

if TYPE_CHECKING:
    import pyarrow as pa

    from feature_repo.contracts.features import FeatureGroup
    from pipelines.features.groups import Inputs

Example = dict[str, Any]
_DECIMALS = 2
"""Of a vector's numbers: the rest is not the same on every processor."""


def stored_examples(inputs: Inputs) -> Example:
    """Return feature → value, of every stored feature and every kind of embedding."""
    values: Example = {}
    for group in declared(inputs.schema).groups:
        values |= _latest(group, inputs)
    for kind in EMBEDDINGS.values():
        values |= _vectors(kind, inputs)
    return values


def request_examples(inputs: Inputs, stored: Example) -> Example:
    """Return on-demand feature → value, of a request that is made at the log's cutoff."""
    raw = {**stored, REQUEST_TIME.name: int(CUTOFF.timestamp())}
    (row,) = inputs.counted.agg(F.avg("value").alias("mean")).collect()
    return {feature.name: value_at_request(feature, raw, row["mean"]) for feature in on_demand(inputs.schema)}


def _latest(group: FeatureGroup, inputs: Inputs) -> Example:
    """Return the latest row of the example's user or item; LookupError where the log leaves it without one."""
    key = group.entity.name
    rows = compute(group, inputs).where(F.col(key) == ENTITIES[key]).orderBy(F.desc("event_time")).limit(1).collect()
    if not rows:
        msg = f"feature group {group.name}: expected a row of {key} {ENTITIES[key]!r} before {CUTOFF}, received none"
        raise LookupError(msg)
    row = rows[0].asDict()
    return {column.name: row[column.name] for column in group.features}


def _vectors(kind: Embedding, inputs: Inputs) -> Example:
    """Return what a fit on the log gives, which takes every like and every edge: there are few of them."""
    walks = None if kind.walks is None else replace(kind.walks, least_count=1)
    small = replace(kind, skip_gram=replace(kind.skip_gram, least_likes=1), walks=walks)
    likes = liked_events(inputs.known, inputs.schema.positive)
    lasts = last_liked(inputs.known, inputs.schema, LAST_ITEMS)
    side = side_information(inputs.items.toArrow(), inputs.schema, inputs.cutoff)
    with scratch_folder() as folder:
        fitted = fit(small, likes, lasts, side, folder / kind.name)
    stamp = hashlib.sha256(kind.name.encode()).hexdigest()
    values: Example = {}
    for group, rows in ((kind.item_group, fitted.items), (kind.user_group, fitted.users)):
        vector, stamped = group.features
        values |= {vector.name: _vector(rows, group.entity.name), stamped.name: stamp}
    return values


def _vector(rows: pa.Table, key: str) -> list[float]:
    """Return the vector of the example's user or item."""
    numbers = rows.column(VECTOR.name)[rows.column(key).to_pylist().index(ENTITIES[key])].as_py()
    return [round(number, _DECIMALS) + 0.0 for number in numbers]
