"""Job: the daily statistics tables, from what lies in the lake."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from feature_repo.contracts.datasets import EVENTS, items_dataset, users_dataset
from feature_repo.contracts.schemas import read_schema
from pipelines.io.lake import stored_dataset
from pipelines.statistics.tables import update_statistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_repo.contracts.places import Namespace
    from pipelines.settings import Settings


def run(settings: Settings, place: Namespace) -> Mapping[str, object]:  # noqa: ARG001 - every job takes the settings
    """Make the tables say what the lake holds. The job `check` does so, too; this one is for the tables alone.

    Raises:
        JobError: nothing was ingested.
        TransientError: another job is writing the lake or the tables.
    """
    schema = read_schema(place)
    datasets = (EVENTS, items_dataset(schema), users_dataset(schema))
    with ExitStack() as stack:
        lake = [stack.enter_context(stored_dataset(place, dataset).reading()) for dataset in datasets]
        updated = update_statistics(place, schema, *lake)
    return {"days_computed": updated.days_computed, "changed_partitions": updated.changed_partitions}
