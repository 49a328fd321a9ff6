"""Job: fit the channels of recall that learn from likes, and store their tables as dated snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.schemas import read_schema
from feature_repo.list_metrics import DECIDING
from pipelines.channels.choice import Validation
from pipelines.channels.fitting import fit_channels, store_channels
from pipelines.io.duck import create_view, duckdb_session
from pipelines.io.lake import stored_dataset

if TYPE_CHECKING:
    from datetime import datetime

    from feature_repo.contracts.places import Namespace
    from pipelines.settings import Settings

_MEMORY = "2GB"


def run(settings: Settings, place: Namespace, cutoff: datetime) -> dict[str, object]:
    """Write every fitted channel's table of `cutoff`; the same events give the same files.

    Raises:
        JobError: Nothing was ingested, or there is too little memory for EASE.
        TransientError: Another job is writing the lake or channels.
    """
    schema = read_schema(place)
    with stored_dataset(place, EVENTS).reading(before=cutoff) as events, duckdb_session(_MEMORY) as connection:
        create_view(connection, "events", events)
        validation = Validation(connection, schema.positive, settings)
        fitted = fit_channels(connection, settings, schema, cutoff, validation)
    parts = store_channels(place, cutoff, fitted)
    return {
        "channels": {
            each.channel.name: {
                "variant": each.choice.variant.parameters,
                DECIDING: dict(each.choice.validation),
                "items": each.table.num_rows,
                "sha256": parts[each.channel.name].checksum,
            }
            for each in fitted
        }
    }
