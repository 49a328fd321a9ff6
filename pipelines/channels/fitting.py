"""Fits every channel that learns from likes, as of a moment: the variants are chosen before it, too."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from feature_repo.contracts.channels import Table, channels
from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.memory import memory
from feature_repo.contracts.questions import Audience
from feature_repo.locks import exclusive
from pipelines.channels.choice import Validation, choose
from pipelines.channels.fits import EASE_BYTES
from pipelines.channels.likes import like_matrix
from pipelines.channels.snapshots import find_channel, write_channel
from pipelines.channels.tables import neighbours_table, scores_table
from pipelines.errors import JobError, TransientError
from pipelines.questions.asked import likes_before

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import duckdb
    import pyarrow as pa

    from feature_repo.contracts.channels import Channel
    from feature_repo.contracts.manifests import Part
    from feature_repo.contracts.memory import Memory
    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.questions import SimpleList
    from feature_repo.contracts.schemas import Schema
    from pipelines.channels.choice import Choice
    from pipelines.channels.likes import LikeMatrix
    from pipelines.settings import Settings

_LOG = logging.getLogger(__name__)
_BLAS_THREADS = 1
"""Sums are made in one order, so that the same events give the same bytes; two are slower where others want a core."""
_GB = 1e9


@dataclass(frozen=True, slots=True)
class FittedChannel:
    """A channel as of a moment."""

    channel: Channel
    choice: Choice
    table: pa.Table
    """Rows of the channel's table."""


def fitted_channels(schema: Schema) -> list[Channel]:
    """Return the channels that are fitted on likes, in the order of their declaration."""
    return [channel for channel in channels(schema).values() if channel.table is not None]


def fit_channels(  # noqa: PLR0917 - from what, how, as of when, chosen by what
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    schema: Schema,
    cutoff: datetime,
    validation: Validation,
    chosen_before: datetime | None = None,
) -> list[FittedChannel]:
    """Choose and fit every channel on what was liked before `cutoff`; nothing after it is read.

    Args:
        connection: With the view `events`.
        settings: How many items EASE knows, how many neighbours an item has.
        schema: What is a like, and so which channels there are.
        cutoff: As of when.
        validation: Judges the variants; for several cutoffs of one view it may be the same.
        chosen_before: Where the answers that choose end at the latest, if that is before the cutoff.

    Raises:
        JobError: The machine has too little memory for EASE.
        TransientError: It would have enough, if others took less.
    """
    with threadpool_limits(_BLAS_THREADS, user_api="blas"):
        matrix = like_matrix(likes_before(connection, cutoff, schema.positive))
        if not matrix.liked_items:
            _LOG.warning("nobody likes anything before %s: channels are empty", format_cutoff(cutoff))
        check_memory(min(settings.channel_items, matrix.liked_items), memory())
        judged = validation.before(chosen_before or cutoff)
        if not judged.figures:
            _LOG.warning("no origin before %s has answers: variants are not chosen", format_cutoff(cutoff))
        tables: dict[tuple[SimpleList, float, float], pa.Table] = {}
        fitted = []
        for channel in fitted_channels(schema):
            began = time.monotonic()
            fitted.append(_fit(channel, choose(channel, judged), matrix, settings, tables))
            _LOG.info("%s, %.1f s", told(fitted[-1]), time.monotonic() - began)
    _LOG.info("%s", best_told(fitted))
    return fitted


def _fit(
    channel: Channel,
    choice: Choice,
    matrix: LikeMatrix,
    settings: Settings,
    tables: dict[tuple[SimpleList, float, float], pa.Table],
) -> FittedChannel:
    """Fit one channel; `tables` holds those made before: weights do not depend on the user's half-life."""
    variant = choice.variant
    key = (variant.method, variant.strength, 0.0 if variant.is_personal else variant.half_life)
    if key not in tables:
        if channel.table is Table.NEIGHBOURS:
            tables[key] = neighbours_table(matrix, variant, settings.channel_items, settings.channel_neighbours)
        else:
            tables[key] = scores_table(matrix, variant)
    return FittedChannel(channel, choice, tables[key])


def store_channels(place: Namespace, cutoff: datetime, fitted: Sequence[FittedChannel]) -> dict[str, Part]:
    """Store every channel's table as the one of `cutoff`; return name → part. The same fit is the same bytes.

    Raises:
        TransientError: Another job is writing channels.
    """
    with exclusive(place.locks / "channels.lock", f"channels of namespace {place.name}"):
        return {
            each.channel.name: write_channel(place, each.channel, cutoff, each.choice, each.table) for each in fitted
        }


def find_channels(place: Namespace, schema: Schema, cutoff: datetime) -> dict[str, Part]:
    """Return name → part of every channel that is fitted; the errors are those of `find_channel`."""
    return {channel.name: find_channel(place, channel, cutoff) for channel in fitted_channels(schema)}


def check_memory(items: int, found: Memory | None) -> None:
    """Refuse a fit of EASE that the kernel would end for want of memory, or say what it will take.

    Raises:
        JobError: The machine has not enough, however empty it is.
        TransientError: It would have, if others took less.
    """
    needed = EASE_BYTES * items * items
    _LOG.info("EASE of %d items takes about %.1f GB of memory", items, needed / _GB)
    if found is None:
        return
    subject = f"EASE of {items} items: expected about {needed / _GB:.1f} GB of memory"
    if needed > found.total:
        msg = (
            f"{subject}, this machine or container has {found.total / _GB:.1f} GB; give it more, or let EASE know "
            f"{_items_within(found.total)} items at most (KESTREL_CHANNEL_ITEMS)"
        )
        raise JobError(msg)
    if needed > found.available:
        msg = (
            f"{subject}, {found.available / _GB:.1f} GB are free; try again when less runs beside it, or let EASE know "
            f"{_items_within(found.available)} items at most (KESTREL_CHANNEL_ITEMS)"
        )
        raise TransientError(msg)


def _items_within(memory_bytes: int) -> int:
    return max(1, int((max(memory_bytes, 0) / EASE_BYTES) ** 0.5) // 100 * 100)


def told(fitted: FittedChannel) -> str:
    """Say in a line which variant a channel has, and how it did."""
    choice = fitted.choice
    variant = choice.variant.parameters or "its only variant"
    of = f" of {choice.tried} variants" if choice.tried > 1 else ""
    figures = ", ".join(f"{figure:.3f} for {audience} users" for audience, figure in choice.validation.items())
    judged = f"NDCG@10 {figures}" if figures else "not judged"
    return f"{fitted.channel.name}: {variant}{of}, {judged}, {fitted.table.num_rows} items"


def best_told(fitted: Sequence[FittedChannel]) -> str:
    """Say which list did best for whom: for new users the best of those that are the same for everybody."""
    general = [each for each in fitted if each.channel.table is Table.SCORES]
    best: dict[str, Mapping[str, float]] = {
        audience.value: {
            each.channel.name: each.choice.validation[audience]
            for each in among
            if audience.value in each.choice.validation
        }
        for audience, among in ((Audience.KNOWN, fitted), (Audience.NEW, general))
    }
    named = [
        f"{max(figures, key=lambda name: figures[name])} for {audience} users"
        for audience, figures in best.items()
        if figures
    ]
    return f"the best list on validation: {', '.join(named)}" if named else "no list was judged"
