"""A shop's log from its file to the features; a late event rewrites the partitions that it must, and no other."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.features import Declared, declared
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import read_schema
from pipelines.features.tables import feature_table
from pipelines.io.lake import partition_name, stored_dataset
from pipelines.jobs import features, ingest
from pipelines.settings import Settings
from pipelines.sources.mode import Mode
from tests.shop_log import CLOCK, FIRST, derived_mapping, shop, write_shop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

CUTOFF = datetime(2024, 3, 7, tzinfo=UTC)


@pytest.fixture
def refresh(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Namespace]:
    """Ingest a source and compute its features in the session of all specifications."""
    monkeypatch.setattr(features, "spark_session", lambda *_, **__: nullcontext(spark))
    settings = Settings(state=tmp_path / "state")
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(derived_mapping(), encoding="utf-8")

    def run(name: str, source: Path, mode: Mode = Mode.WHOLE) -> Namespace:
        place = Namespace(settings.state, name)
        ingest.run(settings, place, source, None, CLOCK, mapping, mode)
        features.run(settings, place, CUTOFF, None)
        return place

    return run


def partitions(place: Namespace, group: str) -> dict[str, Any]:
    declaration: Declared = declared(read_schema(place))
    return feature_table(place, getattr(declaration, group)).snapshot().partitions


def test_a_late_event_rewrites_the_partitions_that_it_must(refresh: Callable[..., Namespace], tmp_path: Path) -> None:
    log, _ = shop(events=120, users=12, items=30)
    known = [row for row in log if row["customer"]]
    late = {**known[0], "at": FIRST + timedelta(days=1, hours=12), "action": "buy"}
    place = refresh("n", write_shop(tmp_path / "whole", known))
    before = {group: partitions(place, group) for group in ("user_activity", "item_activity")}

    refresh("n", write_shop(tmp_path / "late", [late], form="jsonl"), Mode.PART)

    day = partition_name(late["at"].date())
    events = stored_dataset(place, EVENTS).snapshot().read().to_pylist()
    for group, key, column in (("user_activity", "user_id", "customer"), ("item_activity", "item_id", "sku")):
        after = partitions(place, group)
        changed = {name for name in after if after[name] != before[group].get(name)}
        own = {partition_name(row["event_time"].date()) for row in events if row[key] == late[column]}
        expected = {name for name in own if name >= day}
        assert changed == expected
        assert day in changed
        assert changed < set(after), "some partitions have nothing of the late event, or the test shows nothing"
        assert before[group].keys() <= after.keys()
