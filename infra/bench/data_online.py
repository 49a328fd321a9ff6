"""Materialisation: how fast features get into Redis, by our writer and by Feast's own, and what they weigh there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import redis

from feature_repo.contracts.datasets import USER_ID
from feature_repo.contracts.intervals import feast_project, parse_cutoff
from feature_repo.feast_redis import feature_field, timestamp_field
from pipelines.feast_store.online import stored_entities

if TYPE_CHECKING:
    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.contracts.places import Namespace
    from pipelines.settings import Settings

_SAMPLE = 2000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Weight:
    """What the online store takes, in bytes."""

    used: int
    """All of Redis' memory."""
    per_user: float
    """Mean of one user's hash, with its key, over a sample."""
    users: int
    per_row: float
    """Mean of one user's fields of the group that was asked for, names included, over the same sample."""


def weigh(redis_url: str, namespace: str, group: FeatureGroup) -> Weight:
    """Look at what Redis holds of a namespace, and of one group of its users."""
    view = group.view_name
    fields = [timestamp_field(view), *(feature_field(view, column.name) for column in group.features)]
    with redis.Redis.from_url(redis_url) as client:
        used = int(client.info("memory")["used_memory"])
        users = stored_entities(client, feast_project(namespace), USER_ID.name)
        chosen = [users[user] for user in sorted(users)[:: max(len(users) // _SAMPLE, 1)]]
        with client.pipeline(transaction=False) as pipeline:
            for key in chosen:
                pipeline.memory_usage(key, samples=0)
            sizes = pipeline.execute()
            for key in chosen:
                pipeline.hmget(key, fields)
            rows = pipeline.execute()
    pairs = (pair for row in rows for pair in zip(fields, row, strict=True))
    stored = sum(len(field) + len(value) for field, value in pairs if value is not None)
    return Weight(used, sum(sizes) / len(sizes), len(users), stored / len(rows))


def materialise_view(settings: Settings, place: Namespace, view: str, cutoff: str, writer: str) -> None:
    """Materialise one view with this project's engine ('arrow') or Feast's own ('feast')."""
    from feast import FeatureStore  # noqa: PLC0415 - it takes seconds

    from pipelines.feast_store.registry import quiet_output  # noqa: PLC0415 - as above
    from pipelines.feast_store.store import repo_config  # noqa: PLC0415 - as above

    config = repo_config(settings, place)
    if writer == "feast":
        config.batch_engine_config = "local"
        config.materialization_config.online_write_batch_size = 10_000
    store = FeatureStore(config=config)
    with quiet_output():
        store.materialize(_EPOCH, parse_cutoff(cutoff), [view])
