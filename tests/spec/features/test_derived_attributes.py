"""Attributes that are read off event rows: a shop's log from its file to the features, which know no later row."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from feature_repo.contracts.datasets import EVENTS, items_dataset, known_items_dataset, known_users_dataset
from feature_repo.contracts.events import Event, key_id
from feature_repo.contracts.features import Declared, Freshness, declared
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import read_schema
from pipelines.features.tables import feature_dataset, feature_table
from pipelines.features.terms import MOST_TERMS
from pipelines.io.arrow import conform
from pipelines.io.lake import is_before, stored_dataset
from pipelines.io.versions import known_sql
from pipelines.jobs import features, ingest
from pipelines.settings import Settings
from pipelines.stream.fold import UserState, advance
from pipelines.stream.fold import features as folded_features
from pipelines.stream.items import read_knowledge
from pipelines.stream.state_row import state_of
from tests.shop_log import CLOCK, FIRST, derived_mapping, shop, write_shop
from tests.spec.features.test_feature_oracle import moments, padded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pyspark.sql import SparkSession

    from feature_repo.contracts.features import FeatureGroup
    from tests.shop_log import Rows

pytestmark = pytest.mark.spark

THEN = FIRST + timedelta(days=3)
NOW = FIRST + timedelta(days=6)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moody_log(seed: int = 1, events: int = 300, tags: int = 6) -> Rows:
    """Return a shop's events whose rows say something else of items and users every now and then, at the start nothing.

    From THEN on they say what nobody said before.
    """
    dice = random.Random(seed)
    log, _ = shop(events=events, users=12, items=10)
    names = [f"t{number}" for number in range(tags)]
    for row in log:
        row["customer"] = row["customer"] or "c0"
        row["price"] = dice.choice([1.5, 2.0, 2.25, 7.0, None])
        row["tags"] = dice.sample(names, dice.randrange(4))
        row["country"] = dice.choice(["FR", "NO", "UK", None])
        if row["at"] >= THEN:
            row |= {"price": 999.0, "tags": ["future"], "country": "ZZ", "label": "Renamed"}
    return log


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path / "state")


@pytest.fixture
def ingested(settings: Settings, tmp_path: Path) -> Callable[..., Namespace]:
    """Ingest a log whose items and users are read off its rows."""
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(derived_mapping(), encoding="utf-8")

    def run(name: str, log: Rows, cutoff: datetime | None = None) -> Namespace:
        place = Namespace(settings.state, name)
        source = write_shop(tmp_path / f"{name} {len(list(tmp_path.iterdir()))}", log, form="jsonl")
        ingest.run(settings, place, source, cutoff, CLOCK, mapping)
        return place

    return run


@pytest.fixture
def refresh(
    settings: Settings, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Namespace, datetime], dict[str, Any]]:
    """Run the features' job in the session of all specifications, and return its views."""
    monkeypatch.setattr(features, "spark_session", lambda *_, **__: nullcontext(spark))
    return lambda place, cutoff: features.run(settings, place, cutoff, None)["views"]  # type: ignore[return-value]


def declaration(place: Namespace) -> Declared:
    return declared(read_schema(place))


def present(group: FeatureGroup | None) -> FeatureGroup:
    assert group is not None
    return group


def batch(spark: SparkSession, place: Namespace, group: FeatureGroup, cutoff: datetime) -> list[dict[str, Any]]:
    """Compute a group from the whole lake, whatever lies after the cutoff."""
    from pipelines.features.groups import Inputs, compute
    from pipelines.io.spark import read_snapshot

    schema = read_schema(place)
    datasets = (EVENTS, known_items_dataset(schema), known_users_dataset(schema))
    frames = (read_snapshot(spark, stored_dataset(place, dataset).snapshot()) for dataset in datasets)
    table = compute(group, Inputs(schema, *frames, cutoff)).toArrow()
    rows: list[dict[str, Any]] = conform(table, feature_dataset(group)).to_pylist()
    return rows


def test_a_backfill_gives_what_was_known_then(
    ingested: Callable[..., Namespace], refresh: Callable[..., dict[str, Any]]
) -> None:
    """And no later row changes a row of features before it, of whatever group."""
    log = moody_log()
    place = ingested("n", log, THEN)
    then = refresh(place, THEN)
    tables = {group.name: feature_table(place, group) for group in declaration(place).groups}
    before = {name: table.snapshot().partitions for name, table in tables.items()}

    ingested("n", log, NOW)
    assert refresh(place, NOW) != then
    for group in declaration(place).groups:
        after = tables[group.name].snapshot().partitions
        assert group.freshness is not Freshness.STATIC
        if group.by_date:
            kept = {name: partition for name, partition in after.items() if is_before(name, THEN)}
            assert kept == before[group.name], f"rows of {group.name} before {THEN} know what came after"

    ingested("n", log, THEN)
    assert refresh(place, THEN) == then


def reduced(log: Iterable[dict[str, Any]], what: str) -> Any:
    """Return what rows say of one item or user: the reductions of the shop's mapping."""
    said = [(row["at"], row[what]) for row in log if row[what] not in (None, [])]
    if not said:
        return [] if what == "tags" else None
    match what:
        case "price":
            return sorted(price for _, price in said)[(len(said) - 1) // 2]
        case "tags":
            return max(said)[1]
    numbers = Counter(value for _, value in said)
    return min(numbers, key=lambda value: (-numbers[value], value))


def known(log: Rows, key: str, name: str, what: str, moment: datetime) -> Any:
    """Return what had been said by the midnight before a moment."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return reduced((row for row in log if row[key] == name and row["at"] < midnight), what)


def test_activity_counts_what_was_known_of_an_item_on_the_midnight_before(
    spark: SparkSession, ingested: Callable[..., Namespace]
) -> None:
    log = moody_log(3)
    place = ingested("n", log)
    rows = batch(spark, place, declaration(place).user_activity, NOW)
    assert len(rows) > 100
    seen = set()
    for row in rows:
        own = [each for each in log if each["customer"] == row["user_id"] and each["at"] <= row["event_time"]]
        counted = [each for each in own if each["action"] != "back"]
        prices = [known(log, "sku", each["sku"], "price", each["at"]) for each in counted]
        expected = moments([Fraction(price) for price in prices if price is not None])
        assert (row["user_price_mean"], row["user_price_std"]) == pytest.approx(expected, rel=1e-6)
        bought = [each for each in counted if each["action"] == "buy"]
        likes = Counter(tag for each in bought for tag in known(log, "sku", each["sku"], "tags", each["at"]))
        top = sorted(likes, key=lambda tag: (-likes[tag], tag))
        assert row["user_top_tags"] == padded(top, 5, "")
        seen |= {row["user_price_mean"] == -1, "future" in top}
    assert seen == {True, False}, "some know nothing yet, some what was said last"


@pytest.mark.parametrize(("owner", "key"), [("item", "sku"), ("user", "customer")])
def test_a_profile_changes_with_what_is_said(
    owner: str, key: str, spark: SparkSession, ingested: Callable[..., Namespace]
) -> None:
    log = moody_log(4)
    place = ingested("n", log)
    group = present(getattr(declaration(place), f"{owner}_profile"))
    rows = batch(spark, place, group, NOW)
    expected = []
    for name in sorted({row[key] for row in log}):
        before = None
        own = [row for row in log if row[key] == name]
        for day in sorted({row["at"].date() for row in own}):
            end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
            said = {what: known(log, key, name, what, end) for what in ("price", "tags", "country")}
            now = (
                {
                    "item_price": -1.0 if said["price"] is None else said["price"],
                    "item_tags": padded(said["tags"], 3, ""),
                }
                if owner == "item"
                else {"user_country": said["country"] or ""}
            )
            if now != before:
                expected.append({group.entity.name: name, "event_time": end - timedelta(microseconds=1), **now})
            before = now
    assert rows == sorted(expected, key=lambda row: (row["event_time"], row[group.entity.name]))


def test_someone_of_whom_nothing_was_said_has_a_row_from_the_first_event_on(
    spark: SparkSession, ingested: Callable[..., Namespace]
) -> None:
    """As whoever came by the stream: of these there are no observations."""
    from pipelines.features.profiles import dated_profile
    from pipelines.io.spark import read_snapshot

    log = moody_log(5)
    place = ingested("n", log)
    schema = read_schema(place)
    events = read_snapshot(spark, stored_dataset(place, EVENTS).snapshot())
    versions = read_snapshot(spark, stored_dataset(place, known_users_dataset(schema)).snapshot())
    silent, late = versions.where("user_id <> 'c1'"), versions.where("event_time >= '2024-03-03'")
    group = present(declaration(place).user_profile)
    rows = dated_profile(silent, events, group).where("user_id = 'c1'").collect()
    first = min(row["at"] for row in log if row["customer"] == "c1")
    end = first.replace(hour=23, minute=59, second=59, microsecond=999_999, tzinfo=None)
    assert [(row["event_time"], row["user_country"]) for row in rows] == [(end, "")]
    countries = [row["user_country"] for row in dated_profile(late, events, group).sort("event_time").collect()]
    assert countries[0] == ""
    assert countries[-1]


def test_the_catalogue_is_what_was_known_at_the_cutoff(ingested: Callable[..., Namespace]) -> None:
    log = moody_log(6)
    place = ingested("n", log)
    schema = read_schema(place)
    versions = stored_dataset(place, known_items_dataset(schema)).snapshot(before=THEN)
    rows = duckdb.sql(known_sql(versions, items_dataset(schema))).to_arrow_table().to_pylist()
    names = sorted({row["sku"] for row in log if row["at"] < THEN})
    assert sorted(row["item_id"] for row in rows) == names
    for row in rows:
        assert row["price"] == known(log, "sku", row["item_id"], "price", THEN)
        assert row["tags"] == known(log, "sku", row["item_id"], "tags", THEN)
        assert row["title"] != "Renamed"


def as_event(row: dict[str, Any]) -> Event:
    key = (row["user_id"], row["item_id"], row["event_type"], (row["event_time"] - EPOCH) // timedelta(microseconds=1))
    return Event(key_id(*key), *key[:3], row["value"], key[3])


@pytest.mark.parametrize("tags", [6, 150], ids=["few terms", "more terms than are counted"])
def test_the_stream_counts_on_as_the_batch_will(
    tags: int, spark: SparkSession, ingested: Callable[..., Namespace]
) -> None:
    """From the state of each refresh, with items as of that refresh, the events of the day after it."""
    log = moody_log(7, events=500, tags=tags)
    place = ingested("n", log)
    schema, groups = read_schema(place), declaration(place)
    events = stored_dataset(place, EVENTS).snapshot().read().to_pylist()
    activity = batch(spark, place, groups.user_activity, NOW)
    compared = 0
    for days in (1, 2, 4):
        cutoff = FIRST + timedelta(days=days)
        about = read_knowledge(place, cutoff)
        states = {row["user_id"]: state_of(row, schema) for row in batch(spark, place, groups.user_state, cutoff)}
        for row in activity:
            if cutoff <= row["event_time"] < cutoff + timedelta(days=1):
                since = [
                    as_event(event)
                    for event in events
                    if event["user_id"] == row["user_id"] and cutoff <= event["event_time"] <= row["event_time"]
                ]
                state = advance(states.get(row["user_id"], UserState()), since, about.facts, schema)
                wanted = {name: value for name, value in row.items() if name not in {"user_id", "event_time"}}
                assert folded_features(state, schema) == wanted
                compared += 1
        counted = {term for facts in about.items.values() for term in facts.terms["tags"]}
        assert len(counted) <= MOST_TERMS
    assert compared > 100
    assert (len({tag for row in log for tag in row["tags"]}) > MOST_TERMS) == (tags > MOST_TERMS)
