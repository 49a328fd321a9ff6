"""What is read online is what is specified: every table of test_feature_specifications, through Redis, read three ways.

The drawn rows are written as feature tables and materialised; Feast's client, the recommender's decoder and, of items,
the recommender's catalogue have to give each key's last row before the cutoff. What the stream makes of the same events
has to be the same row, too. Every specification has users and items of its own (`3/ann`), so that few
materialisations serve them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import redis

from feature_repo.contracts.datasets import EVENTS, ITEM_ID, items_dataset
from feature_repo.contracts.embeddings import EMBEDDINGS
from feature_repo.contracts.events import Position
from feature_repo.contracts.features import Freshness, declared
from feature_repo.contracts.manifests import OnlineSnapshot
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import MOVIELENS, write_schema
from feature_repo.feast_redis import entity_key, feature_field, timestamp_field
from pipelines.embeddings.snapshots import write_item_embeddings
from pipelines.embeddings.tables import online_tables
from pipelines.feast_store.store import open_store
from pipelines.io.lake import stored_dataset
from pipelines.jobs import channels, materialize, publish, registry
from pipelines.settings import Settings
from pipelines.stream.batch import open_users
from pipelines.stream.items import read_knowledge
from pipelines.stream.placed_events import Placed
from serving.recommender.catalogue import Catalogue, catalogue_from_table
from serving.recommender.user_features import UserFeatures, decode_user, user_layout
from tests import feast_world as world
from tests.redis_server import redis_server
from tests.spec.features import test_feature_specifications as drawn
from tests.spec.features.test_feature_specifications import BASE, SHOP, SPECIFICATIONS, Specification, about

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from feast import FeatureStore

    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.contracts.schemas import Schema

pytestmark = pytest.mark.filterwarnings(
    # Feast's own code, not ours: it reads Arrow's pandas metadata through names that pandas will rename.
    "default::DeprecationWarning:feast",
)

Row = dict[str, Any]
NUMBERED = list(enumerate(SPECIFICATIONS))
STREAMED_GROUPS = {group.name for group in declared(MOVIELENS).users if group.streamed}
STREAMED = [pair for pair in NUMBERED if pair[1].group.name in STREAMED_GROUPS]
GROWING_OLD = [pair for pair in NUMBERED if pair[1].group.ttl_days]
MICROSECOND = timedelta(microseconds=1)


def title(pair: object) -> str:
    return pair[1].title if isinstance(pair, tuple) else str(pair)


def own_rows(number: int, spec: Specification, cutoff: datetime) -> list[Row]:
    """Return a specification's rows with keys of their own; those that are as of the cutoff, as of this one."""
    key = spec.group.entity.name
    is_latest = spec.group.freshness is Freshness.LATEST
    return [
        {
            **{name: value for name, value in row.items() if name != "time"},
            key: f"{number}/{row[key]}",
            "event_time": cutoff - MICROSECOND if is_latest else row["time"],
        }
        for row in spec.expected
    ]


@dataclass
class Online:
    """A namespace that was materialised, and whatever reads from it."""

    place: Namespace
    schema: Schema
    cutoff: datetime
    client: redis.Redis
    store: FeatureStore
    snapshot: OnlineSnapshot
    catalogue: Catalogue
    streamed: dict[str, Row] = field(default_factory=dict)
    """User that the stream alone knows → the row that it should have made."""

    def by_feast(self, group: FeatureGroup, keys: list[str]) -> dict[str, Row]:
        names = [column.name for column in group.features]
        references = [f"{group.view_name}:{name}" for name in names]
        answer = self.store.get_online_features(references, [{group.entity.name: key} for key in keys]).to_dict()
        return {key: {name: answer[name][place] for name in names} for place, key in enumerate(keys)}

    def by_recommender(self, group: FeatureGroup, key: str, now: datetime) -> UserFeatures:
        """Return what the recommender decodes: of what it reads of users, by the very fields that it asks for."""
        layout = user_layout(self.snapshot, declared(self.schema))
        if group in layout.groups:
            groups, fields = layout.groups, layout.fields
        else:
            view = group.view_name
            groups = (group,)
            fields = (timestamp_field(view), *(feature_field(view, column.name) for column in group.features))
        stored = self.client.hmget(entity_key(layout.project, group.entity.name, key), list(fields))  # type: ignore[arg-type]  # it takes bytes
        return decode_user(groups, stored, now)


def materialised(settings: Settings, client: redis.Redis, name: str, schema: Schema, cutoff: datetime) -> Online:
    """Write the drawn rows as feature tables, and take them online as the jobs do."""
    place = Namespace(settings.state, name)
    write_schema(place, schema)
    mine = [(number, spec) for number, spec in NUMBERED if spec.schema is schema]
    known = {row["item_id"]: row for _, spec in mine for row in drawn.inputs(spec)[1]}
    own = [
        {**known[item], "item_id": f"{number}/{item}"}
        for number, spec in mine
        if spec.group.entity is ITEM_ID
        for item in {row["item_id"]: None for row in spec.expected}
    ]
    world.write(
        stored_dataset(place, items_dataset(schema)), sorted([*known.values(), *own], key=lambda row: row["item_id"])
    )
    for group, _ in online_tables(settings, place):
        rows = [row for number, spec in mine if spec.group == group for row in own_rows(number, spec, cutoff)]
        somebody = {group.entity.name: "somebody", "event_time": cutoff - MICROSECOND}
        # The columns of a state have nothing that stands for "no value": what a specification does not draw is 0.
        undrawn = {column.name: 0 for column in group.features if column.missing is None and not column.length}
        world.write_features(place, group, [undrawn | row for row in rows or [somebody]])
    for kind in EMBEDDINGS.values():
        write_item_embeddings(place, kind, cutoff, drawn.item_vectors())
    world.write(stored_dataset(place, EVENTS), [])
    channels.run(settings, place, cutoff)
    registry.run(settings, place)
    materialize.run(settings, place, cutoff)
    publish.run(settings, place, cutoff)
    snapshot = OnlineSnapshot.read(place.online_current)
    table = pq.read_table(place.root / snapshot.catalogue.path)
    catalogue = catalogue_from_table(table, declared(schema), snapshot.catalogue.path)
    return Online(place, schema, cutoff, client, open_store(settings, place), snapshot, catalogue)


def stream(online: Online, specifications: Iterable[tuple[int, Specification]]) -> None:
    """Let the stream make every row of specifications: each of a user who did what was done up to it, and no more."""
    placed = []
    for number, spec in specifications:
        for place, row in enumerate(spec.expected):
            user = f"{number}/{place}/{row['user_id']}"
            online.streamed[user] = row
            events = [each for each in drawn.inputs(spec)[0] if each["user_id"] == row["user_id"]]
            until = min(row["time"], spec.end - MICROSECOND)
            placed += [
                Placed(world.sent_event({**each, "user_id": user}), Position(1, len(placed) + count))
                for count, each in enumerate(events)
                if each["event_time"] <= until
            ]
    open_users(online.client, online.place, read_knowledge(online.place, online.cutoff)).apply(placed)


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Online]]:
    """MovieLens as of the first midnight, where rows lie on it and after it, and of the last; and the shop."""
    state = tmp_path_factory.mktemp("online")
    with redis_server() as url, redis.Redis.from_url(url) as client:
        settings = Settings(state=state, redis_url=url, embeddings=",".join(EMBEDDINGS))
        worlds = [
            materialised(settings, client, "drawn-1d", MOVIELENS, BASE + timedelta(days=1)),
            materialised(settings, client, "drawn-100d", MOVIELENS, BASE + timedelta(days=100)),
            materialised(settings, client, "shop", SHOP, BASE + timedelta(days=2)),
        ]
        for schema, where in ((MOVIELENS, worlds[1]), (SHOP, worlds[2])):
            stream(where, [pair for pair in STREAMED if pair[1].schema is schema])
        yield worlds


def last_rows(rows: list[Row], key: str, cutoff: datetime) -> dict[str, Row | None]:
    """Return each key's last row before the cutoff; None where there is none."""
    latest: dict[str, Row | None] = {row[key]: None for row in rows}
    for row in sorted(rows, key=lambda row: row["event_time"]):
        if row["event_time"] < cutoff:
            latest[row[key]] = row
    return latest


@pytest.mark.parametrize("pair", NUMBERED, ids=title)
def test_what_is_read_online_is_the_last_row_before_the_cutoff(
    pair: tuple[int, Specification], online: list[Online]
) -> None:
    number, spec = pair
    group, key = spec.group, spec.group.entity.name
    worlds = [one for one in online if one.schema is spec.schema]
    assert worlds
    for one in worlds:
        latest = last_rows(own_rows(number, spec, one.cutoff), key, one.cutoff)
        by_feast = one.by_feast(group, list(latest))
        for entity, row in latest.items():
            decoded = one.by_recommender(group, entity, one.cutoff)
            if row is None:
                assert set(by_feast[entity].values()) == {None}
                assert group.name in decoded.missing
                continue
            for name, value in row.items():
                if name not in {key, "event_time"}:
                    assert by_feast[entity][name] == about(value)
                    assert decoded.values[name] == about(value)
                    if group in declared(spec.schema).items:
                        assert in_catalogue(one.catalogue, entity, name) == about(value)


def in_catalogue(catalogue: Catalogue, item: str, name: str) -> object:
    value = catalogue.inputs[name][catalogue.positions[item]]
    if isinstance(value, bytes):
        return value.decode()
    if not value.shape:
        return value.item()
    return [entry.decode() if isinstance(entry, bytes) else entry for entry in value.tolist()]


def test_the_first_cutoff_lies_on_rows_and_the_last_after_all_of_them(online: list[Online]) -> None:
    """So the specifications can tell a reader that takes the cutoff's own row from one that does not."""
    first, last, shop = online
    times = {row["time"] for spec in SPECIFICATIONS if spec.schema is MOVIELENS for row in spec.expected}
    assert first.cutoff in times
    assert first.cutoff - MICROSECOND in times
    assert max(times) < last.cutoff
    assert max(row["time"] for spec in SPECIFICATIONS if spec.schema is SHOP for row in spec.expected) < shop.cutoff


@pytest.mark.parametrize("pair", STREAMED, ids=title)
def test_the_stream_makes_the_same_rows(pair: tuple[int, Specification], online: list[Online]) -> None:
    number, spec = pair
    (one,) = (one for one in online if one.schema is spec.schema and one.streamed)
    users = {user: row for user, row in one.streamed.items() if user.startswith(f"{number}/")}
    assert len(users) == len(spec.expected)
    by_feast = one.by_feast(spec.group, list(users))
    for user, row in users.items():
        decoded = one.by_recommender(spec.group, user, one.cutoff)
        for name, value in row.items():
            if name not in {"user_id", "time"}:
                assert by_feast[user][name] == about(value)
                assert decoded.values[name] == about(value)


@pytest.mark.parametrize("pair", GROWING_OLD, ids=title)
def test_what_is_older_than_its_lifetime_reads_as_missing_though_feast_returns_it(
    pair: tuple[int, Specification], online: list[Online]
) -> None:
    number, spec = pair
    group, key = spec.group, spec.group.entity.name
    for one in online:
        if one.schema is not spec.schema:
            continue
        for entity, row in last_rows(own_rows(number, spec, one.cutoff), key, one.cutoff).items():
            if row is None:
                continue
            end = row["event_time"] + timedelta(days=group.ttl_days)
            assert group.name not in one.by_recommender(group, entity, end).missing
            late = one.by_recommender(group, entity, end + MICROSECOND)
            assert group.name in late.missing
            assert late.values.keys().isdisjoint(column.name for column in group.features)
            assert None not in one.by_feast(group, [entity])[entity].values()


def test_a_key_that_nobody_wrote_is_missing_by_every_reader(online: list[Online]) -> None:
    for one in online:
        for group in declared(one.schema).groups:
            assert set(one.by_feast(group, ["nobody"])["nobody"].values()) == {None}
            decoded = one.by_recommender(group, "nobody", one.cutoff)
            assert not decoded.known
            assert group.name in decoded.missing
