"""The job `channels`, on small lakes: what it writes, that it knows no future, and what it does about odd ones."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.channels import TABLES, channels
from feature_repo.contracts.manifests import PartKind
from feature_repo.contracts.memory import Memory
from feature_repo.contracts.places import Namespace, cutoff_name
from feature_repo.contracts.publishing import tree_sha256
from feature_repo.contracts.questions import UNTUNED, SimpleList
from feature_repo.contracts.schemas import MOVIELENS
from feature_repo.locks import exclusive
from pipelines.channels import fitting
from pipelines.channels.fitting import check_memory, find_channels, fitted_channels
from pipelines.errors import CorruptDatasetError, JobError, LockedError, TransientError
from pipelines.io.arrow import arrow_schema
from pipelines.jobs import channels as job
from pipelines.settings import Settings
from tests.feast_world import make_events
from tests.lake_world import DAY_ONE, event, write_lake
from tests.nasty_ids import NASTY_IDS
from tests.shop_log import shop_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from tests.lake_world import Row

CUTOFF = DAY_ONE + timedelta(days=100)
NAMES = ["ease", "ease_aged", "itemcf", "liked_7d", "liked_30d", "liked_lately", "liked"]
DAMAGED = b"PAR1 of another file"


def tastes(days: int = 100, users: int = 24) -> list[Row]:
    """Return a log in which each half of the users likes its own half of the items, a new one every few days."""
    return [
        event(f"u{number:02}", f"{'ab'[number % 2]}{(number * 7 + step) % 20:02}", 5.0 if step % 5 else 2.0, day)
        for number in range(users)
        for step, day in enumerate(range(number % 4, days, 4))
        if step < 18
    ]


def world(folder: Path, events: list[Row], **settings: Any) -> tuple[Settings, Namespace]:
    place = Namespace(folder, "small")
    write_lake(place, events, [], [])
    return Settings(state=folder, **settings), place


def fitted(
    folder: Path, events: list[Row], cutoff: datetime = CUTOFF, **settings: Any
) -> tuple[Namespace, dict[str, Any]]:
    """Run the job on a new lake; return its place and what it says of each channel."""
    told, place = world(folder, events, **settings)
    result = job.run(told, place, cutoff)
    assert list(result) == ["channels"]
    assert json.loads(json.dumps(result)) == result
    return place, result["channels"]  # type: ignore[return-value]  # a job's result is loosely typed


def rows_of(place: Namespace, name: str, cutoff: datetime = CUTOFF) -> list[Row]:
    part = find_channels(place, MOVIELENS, cutoff)[name]
    rows: list[Row] = pq.ParquetFile(place.root / part.path).read().to_pylist()
    return rows


def test_every_declared_channel_has_a_table_and_a_part_of_the_cutoff(tmp_path: Path) -> None:
    place, told = fitted(tmp_path, tastes())
    parts = find_channels(place, MOVIELENS, CUTOFF)
    assert list(told) == list(parts) == NAMES == [channel.name for channel in fitted_channels(MOVIELENS)]
    for name, part in parts.items():
        channel = channels(MOVIELENS)[name]
        assert channel.table is not None
        table = pq.ParquetFile(place.root / part.path).read()
        assert table.schema.remove_metadata().equals(arrow_schema(TABLES[channel.table]))
        assert part.path == f"channels/{name}/{cutoff_name(CUTOFF)}-{part.checksum[:8]}.parquet"
        assert (part.kind, part.version) == (PartKind.CHANNEL, "1998-06-09T00:00:00Z")
        assert part.data == {
            "definition": channel.definition,
            "table": channel.table.value,
            "half_life_days": part.data["half_life_days"],
            "variant": told[name]["variant"],
            "validation": told[name]["ndcg_at_10"],
        }
        assert (told[name]["items"], told[name]["sha256"]) == (table.num_rows, part.checksum)
        ids = table.column("item_id").to_pylist()
        assert ids == sorted(set(ids))
        assert set(part.data["validation"]) == {"known"}, "the last to come have five events within the first days"
        assert all(0 <= figure <= 1 for figure in part.data["validation"].values())


def test_half_lives_are_of_channels_that_count_by_age_and_stand_in_the_variant(tmp_path: Path) -> None:
    place, _ = fitted(tmp_path, tastes())
    found = {name: part.data for name, part in find_channels(place, MOVIELENS, CUTOFF).items()}
    assert found["ease"]["half_life_days"] == 0
    assert found["ease_aged"]["half_life_days"] > 0
    assert found["ease_aged"]["variant"].endswith(f", half-life {found['ease_aged']['half_life_days']:g} days")
    assert found["liked_lately"]["variant"].startswith("half-life ")
    assert {found[name]["half_life_days"] for name in NAMES[3:]} == {0.0}, "an item's score is everybody's"


def test_the_last_of_the_log_decide_which_variant_and_new_users_have_a_figure(tmp_path: Path) -> None:
    newcomers = [event(f"n{number}", f"a{number:02}", 5.0, 75 + number) for number in range(6)]
    _, told = fitted(tmp_path, tastes() + newcomers)
    assert all(set(each["ndcg_at_10"]) == {"known", "new"} for each in told.values())


def test_what_happens_after_the_cutoff_changes_nothing(tmp_path: Path) -> None:
    future = [event(f"u{n % 24:02}", f"z{n % 7}", 5.0, 100 + n / 9) for n in range(90)]
    (one, plain), (other, planted) = (
        fitted(tmp_path / name, events) for name, events in (("plain", tastes()), ("planted", tastes() + future))
    )
    assert plain == planted
    assert tree_sha256(one.channels) == tree_sha256(other.channels)
    _, later = fitted(tmp_path / "later", tastes() + future, CUTOFF + timedelta(days=9))
    assert later != plain


def test_the_same_events_give_the_same_bytes_again_and_elsewhere(tmp_path: Path) -> None:
    settings, place = world(tmp_path / "one", tastes())
    first = job.run(settings, place, CUTOFF)
    content = tree_sha256(place.channels)
    assert job.run(settings, place, CUTOFF) == first
    elsewhere, _ = fitted(tmp_path / "other", tastes()[::-1])
    assert tree_sha256(place.channels) == tree_sha256(elsewhere.channels) == content
    for file in place.channels.rglob("*.parquet"):
        file.write_bytes(DAMAGED)
    assert job.run(settings, place, CUTOFF) == first
    assert tree_sha256(place.channels) == content


@pytest.mark.parametrize(
    ("events", "items"),
    [
        ([], 0),
        ([event("ann", "x", 1.0, 1)], 0),
        ([event("ann", "x", 5.0, 120)], 0),
        ([event("ann", "x", 5.0, 1)], 1),
        ([event("ann", "x", 5.0, 1), event("bob", "x", 5.0, 1.5), event("bob", "y", 5.0, 1.9)], 2),
        (tastes(days=1), 0),
    ],
    ids=["no events", "no likes", "the future alone", "one like", "a day", "a first day of dislikes"],
)
def test_a_log_too_short_to_choose_on_is_fitted_untuned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, events: list[Row], items: int
) -> None:
    with caplog.at_level(logging.INFO):
        place, told = fitted(tmp_path, events)
    assert {each["items"] for each in told.values()} <= {items, 0}
    assert told["liked"]["items"] == told["ease"]["items"] == told["itemcf"]["items"] == items
    assert {name: each["variant"] for name, each in told.items()} == {
        "ease": UNTUNED[SimpleList.EASE],
        "ease_aged": f"{UNTUNED[SimpleList.EASE]}, half-life 30 days",
        "itemcf": UNTUNED[SimpleList.ITEM_CF],
        "liked_7d": "",
        "liked_30d": "",
        "liked_lately": UNTUNED[SimpleList.RECENCY],
        "liked": "",
    }
    assert all(each["ndcg_at_10"] == {} for each in told.values())
    assert len(find_channels(place, MOVIELENS, CUTOFF)) == len(NAMES)
    assert ("nobody likes anything before 1998-06-09T00:00:00Z: channels are empty" in caplog.text) is (items == 0)
    assert "variants are not chosen" in caplog.text
    assert "no list was judged" in caplog.text


def test_a_log_of_some_days_is_judged_within_them(tmp_path: Path) -> None:
    """Answers share what lies after the first half, as of the questions of such a log."""
    _, told = fitted(tmp_path, tastes(days=40))
    assert all(each["ndcg_at_10"] for each in told.values())


def test_one_user(tmp_path: Path) -> None:
    place, told = fitted(tmp_path, [event("ann", f"i{n:02}", 5.0, 3 * n) for n in range(30)])
    assert {name: each["items"] for name, each in told.items()} == dict.fromkeys(NAMES, 30) | {
        "liked_7d": 0,
        "liked_30d": 6,
    }, "the last like is of thirteen days before"
    assert {row["score"] for row in rows_of(place, "liked")} == {1.0}
    assert all(len(row["neighbours"]) == 29 and set(row["weights"]) == {1.0} for row in rows_of(place, "itemcf")[:1])


def test_ids_are_texts_whatever_they_look_like(tmp_path: Path) -> None:
    ids = sorted({text for text in NASTY_IDS.values() if text is not None})
    events = [
        event(user, item, 5.0, (3 * place + 7 * step) % 90)
        for place, user in enumerate(ids)
        for step, item in enumerate(ids[place::3])
    ]
    place, told = fitted(tmp_path, events)
    liked = sorted({row["item_id"] for row in events})
    for name in ("ease", "itemcf", "liked"):
        assert [row["item_id"] for row in rows_of(place, name)] == liked
    assert told["liked"]["ndcg_at_10"]


def test_a_data_set_of_another_schema_has_channels_of_its_own_likes(tmp_path: Path) -> None:
    schema, place = shop_schema(), Namespace(tmp_path, "small")
    rows = [
        {**event(f"c{n % 9}", f"s{(n * n) % 13}", 1.0, n * 0.47), "event_type": ("view", "purchase", "return")[n % 3]}
        for n in range(200)
    ]
    bought = {row["item_id"] for row in rows if row["event_type"] == "purchase"}
    write_lake(place, rows, [], [], schema)
    told: Any = job.run(Settings(state=tmp_path), place, CUTOFF)["channels"]
    assert told["liked"]["items"] == len(bought)
    assert set(find_channels(place, schema, CUTOFF)) == set(NAMES)
    with pytest.raises(
        JobError, match=r"channel ease .*expected a fit by the definition .*python -m pipelines channels"
    ):
        find_channels(place, MOVIELENS, CUTOFF)


def test_a_namespace_without_a_lake_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="python -m pipelines ingest"):
        job.run(Settings(state=tmp_path), Namespace(tmp_path, "nothing"), CUTOFF)


def test_neighbours_are_as_many_as_the_settings_say_and_ease_knows_so_many_items(tmp_path: Path) -> None:
    place, told = fitted(tmp_path, tastes(), channel_items=7, channel_neighbours=3)
    assert told["ease"]["items"] == told["ease_aged"]["items"] == 7
    assert told["itemcf"]["items"] == 40
    assert all(len(row["neighbours"]) <= 3 for name in NAMES[:3] for row in rows_of(place, name))


def test_a_cutoff_without_a_fit_and_damaged_files_are_named_with_what_to_run(tmp_path: Path) -> None:
    place, _ = fitted(tmp_path, tastes())
    with pytest.raises(
        JobError,
        match=r"channel ease of namespace small: expected .*19980608T000000Z\.json, found none; "
        "run `python -m pipelines channels` for this cutoff",
    ):
        find_channels(place, MOVIELENS, CUTOFF - timedelta(days=1))
    part = find_channels(place, MOVIELENS, CUTOFF)["liked"]
    file, record = place.root / part.path, place.channels / "liked" / f"{cutoff_name(CUTOFF)}.json"
    whole = file.read_bytes()
    for damage in (file.unlink, lambda: file.write_bytes(DAMAGED), lambda: file.write_bytes(whole[:-1])):
        damage()
        with pytest.raises(CorruptDatasetError, match=r"liked.*expected SHA-256 .*run `python -m pipelines channels`"):
            find_channels(place, MOVIELENS, CUTOFF)
    for text in ("{}", "[]", "{", "", '{"name": "liked", "kind": "channel"}'):
        record.write_text(text, encoding="utf-8")
        with pytest.raises(CorruptDatasetError, match="run `python -m pipelines channels` for this cutoff"):
            find_channels(place, MOVIELENS, CUTOFF)


def test_two_fits_at_once_are_one_too_many(tmp_path: Path) -> None:
    settings, place = world(tmp_path, tastes(days=20))
    with (
        exclusive(place.locks / "channels.lock", "another"),
        pytest.raises(LockedError, match="channels of namespace small"),
    ):
        job.run(settings, place, CUTOFF)
    job.run(settings, place, CUTOFF)


def test_a_line_says_of_each_channel_what_was_chosen_and_one_which_list_is_the_best(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        _, told = fitted(tmp_path, tastes() + [event(f"n{n}", f"a{n:02}", 5.0, 75 + n) for n in range(6)])
    lines = [record.getMessage() for record in caplog.records if record.name == fitting.__name__]
    for name, tried in (("ease", 6), ("ease_aged", 24), ("itemcf", 15), ("liked_lately", 4)):
        (line,) = (line for line in lines if line.startswith(f"{name}: "))
        figures = told[name]["ndcg_at_10"]
        assert f": {told[name]['variant']} of {tried} variants, NDCG@10 {figures['known']:.3f} for known users" in line
        assert f"{figures['new']:.3f} for new users, {told[name]['items']} items" in line
    best = max(told, key=lambda name: told[name]["ndcg_at_10"]["known"])
    general = max(NAMES[3:], key=lambda name: told[name]["ndcg_at_10"]["new"])
    assert lines[-1] == f"the best list on validation: {best} for known users, {general} for new users"


@pytest.fixture
def small_machine() -> Iterator[Memory]:
    return Memory(total=4 * 10**9, available=10**9, resident=10**8)


def test_ease_beyond_the_memory_is_refused_with_how_many_items_would_do(small_machine: Memory) -> None:
    check_memory(7_000, small_machine)
    check_memory(20_000, None)
    with pytest.raises(
        TransientError,
        match=r"EASE of 10000 items: expected about 1\.6 GB of memory, 1\.0 GB are free; "
        r".*7900 items at most \(KESTREL_CHANNEL_ITEMS\)",
    ):
        check_memory(10_000, small_machine)
    with pytest.raises(JobError, match=r"this machine or container has 4\.0 GB; .*15800 items at most") as refusal:
        check_memory(20_000, small_machine)
    assert not isinstance(refusal.value, TransientError)


def test_memory_is_asked_for_before_anything_is_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "memory", lambda: Memory(total=1000, available=1000, resident=0))
    settings, place = world(tmp_path, tastes())
    with pytest.raises(JobError, match="EASE of 40 items"):
        job.run(settings, place, CUTOFF)
    assert not place.channels.exists()


def test_events_of_a_data_set_in_bursts(tmp_path: Path) -> None:
    _, told = fitted(tmp_path, make_events(), DAY_ONE + timedelta(days=41))
    assert all(each["ndcg_at_10"] for each in told.values())
