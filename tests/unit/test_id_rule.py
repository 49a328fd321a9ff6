"""One rule of what an id is, at every door: what came in by one is found by another, and what one refuses, all do."""

from __future__ import annotations

import csv
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import duckdb
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from feature_repo.contracts.datasets import EVENTS, QUARANTINE, RELATIONS, items_dataset, users_dataset
from feature_repo.contracts.events import Event, RefusedError, check_event
from feature_repo.contracts.ids import ID_MAX, ID_PATTERN, cut, is_id, path_part, read_id
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import MOVIELENS, read_schema
from pipelines.checks.judging import is_no_id
from pipelines.io.lake import stored_dataset
from pipelines.io.sql_text import without_surroundings
from pipelines.jobs import ingest
from pipelines.settings import Settings
from tests.nasty_ids import HALF_CHARACTER, NASTY_IDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

CLOCK = datetime(2026, 1, 1, tzinfo=UTC)
BASE = datetime(2024, 3, 1, tzinfo=UTC)
EDGES = "./\x00\x1f\x7f\x80\x85\x9f\xa0 \t\n\u200b\u2028\u3000\ufeff\ufffd"
TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(EDGES)), max_size=140)
FITS_PYDANTIC = TypeAdapter(Annotated[str, Field(pattern=ID_PATTERN, max_length=ID_MAX)])
ITEM, USER = "an item", "a user"
"""What the other column holds where one is under test."""


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as database:
        yield database


def fits_pydantic(text: str) -> bool:
    try:
        FITS_PYDANTIC.validate_python(text)
    except ValidationError:
        return False
    return True


@settings_of_hypothesis(deadline=None)
@given(TEXTS)
def test_sql_pydantic_and_python_agree_on_every_text(database: duckdb.DuckDBPyConnection, text: str) -> None:
    query = f"SELECT {is_no_id('text')}, {without_surroundings('text')} FROM (SELECT $1 AS text)"  # noqa: S608 - a column of this query
    assert database.execute(query, [text]).fetchall() == [(not is_id(text), cut(text))]
    assert fits_pydantic(text) == is_id(text)
    assert cut(cut(text)) == cut(text)


@pytest.mark.parametrize("text", [*NASTY_IDS, HALF_CHARACTER])
def test_what_an_id_is(text: str) -> None:
    expected = NASTY_IDS.get(text)
    if expected is None:
        with pytest.raises(ValueError, match="an id of 1 to 128 characters"):
            read_id(text)
    else:
        assert read_id(text) == expected
        assert is_id(text) == (text == expected)


@pytest.mark.parametrize("identity", sorted(set(filter(None, NASTY_IDS.values()))))
def test_an_id_is_one_part_of_a_path_and_stays_what_it_is(identity: str) -> None:
    url = httpx.URL(f"http://localhost/recommend/{path_part(identity)}?k=1")
    assert (url.path, url.query, url.fragment) == (f"/recommend/{identity}", b"k=1", "")


@pytest.mark.parametrize("name", ["user_id", "item_id", "event_id"])
def test_sent_events(name: str) -> None:
    sent = {"user_id": USER, "item_id": ITEM, "event_type": "rating", "value": 4, "event_time": BASE.isoformat()}
    for text in (*NASTY_IDS, HALF_CHARACTER):
        raw = json.loads(json.dumps({**sent, name: text}))
        expected = NASTY_IDS.get(text)
        if expected is None:
            with pytest.raises(RefusedError, match=name):
                check_event(raw, MOVIELENS, lambda _: True, CLOCK)
        else:
            event = check_event(raw, MOVIELENS, {ITEM, expected}.__contains__, CLOCK)
            assert getattr(event, name) == expected
            assert event == check_event({**raw, name: expected}, MOVIELENS, lambda _: True, CLOCK)


@pytest.mark.parametrize("name", ["user_id", "item_id", "event_id"])
def test_entries_of_a_stream_that_another_program_wrote(name: str) -> None:
    for text in (*NASTY_IDS, HALF_CHARACTER):
        fields = {**Event("e", USER, ITEM, "rating", 4.0, 1).fields(), name: text}
        expected = NASTY_IDS.get(text)
        if expected is None:
            with pytest.raises(ValueError, match=name):
                Event.from_fields(fields)
        else:
            assert getattr(Event.from_fields(fields), name) == expected


MAPPING = """\
name: Nasty
feedback: implicit
event_types: {view: {}}
positive: {event_types: view}
events: {files: events.*, user: user, item: item, time: at, type: {constant: view}, value: {constant: 1}}
items: {files: items.*, id: item}
users: {files: users.*, id: user}
relations: {files: relations.*, user: user, other: other, since: at}
"""


def write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.with_suffix(".csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.with_suffix(".jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_parquet(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path.with_suffix(".parquet"))


def moment(second: int) -> str:
    return (BASE + timedelta(seconds=second)).isoformat()


def stored(place: Namespace, dataset: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = stored_dataset(place, dataset).snapshot().read().to_pylist()
    return rows


def taken_in(place: Namespace, column: str, texts: Sequence[str], first: int) -> dict[str, str | None]:
    """Text → what the lake has in a column of the event that was one row for each text, from a second on."""
    by_time = {row["event_time"]: row[column] for row in stored(place, EVENTS)}
    return {text: by_time.get(BASE + timedelta(seconds=first + number)) for number, text in enumerate(texts)}


@pytest.mark.parametrize("write", [write_csv, write_jsonl, write_parquet])
def test_files_that_a_mapping_describes(tmp_path: Path, write: Any) -> None:
    texts = [text for text in NASTY_IDS if write is not write_csv or not {"\x00", "\ufffd"} & set(text)]
    ids, refused = {NASTY_IDS[text] for text in texts} - {None}, [text for text in texts if NASTY_IDS[text] is None]
    folder = tmp_path / "source"
    folder.mkdir()
    users = [{"user": text, "item": ITEM, "at": moment(number)} for number, text in enumerate(texts)]
    items = [{"user": USER, "item": text, "at": moment(1000 + number)} for number, text in enumerate(texts)]
    write(folder / "events", users + items)
    write(folder / "items", [{"item": text, "note": "x"} for text in (ITEM, *texts)])
    write(folder / "users", [{"user": text, "note": "x"} for text in (USER, *texts)])
    follows = [{"user": text, "other": USER, "at": moment(0)} for text in texts]
    followed = [{"user": USER, "other": text, "at": moment(0)} for text in texts]
    write(folder / "relations", follows + followed)
    (tmp_path / "m.yaml").write_text(MAPPING)
    settings = Settings(state=tmp_path / "state", quarantine_limit=0.99)
    place = Namespace(settings.state, "nasty")

    ingest.run(settings, place, folder, None, CLOCK, tmp_path / "m.yaml")

    expected = {text: NASTY_IDS[text] for text in texts}
    assert taken_in(place, "user_id", texts, 0) == expected
    assert taken_in(place, "item_id", texts, 1000) == expected
    schema = read_schema(place)
    assert {row["item_id"] for row in stored(place, items_dataset(schema))} == {ITEM, *ids}
    assert {row["user_id"] for row in stored(place, users_dataset(schema))} == {USER, *ids}
    relations = {(row["user_id"], row["other_user_id"]) for row in stored(place, RELATIONS)}
    assert relations == {pair for each in ids for pair in ((each, USER), (USER, each))}
    reasons = Counter(row["reason"] for row in stored(place, QUARANTINE))
    again = len(texts) - len(refused) - len(ids)
    assert reasons.pop("duplicate_item") == reasons.pop("duplicate_user") == again
    assert set(reasons) <= {"bad_id", "missing_field", "missing_user", "missing_item", "undecodable_bytes"}
    assert sum(reasons.values()) == 6 * len(refused)


def fitting(separator: str, encoding: str) -> list[str]:
    """The texts that a field without quotes can hold: no separator, no line end, no character that is not there."""
    absent = {separator, "\n", "\r", "\x00", "\ufffd"}
    there = (text for text in NASTY_IDS if text.encode(encoding, "ignore").decode(encoding) == text)
    return [text for text in there if not absent & set(text)]


def test_movielens_100k(tmp_path: Path) -> None:
    flags = "|".join("0" * 19)
    texts = [text for text in fitting("\t", "latin-1") if "|" not in text]
    ids = {NASTY_IDS[text] for text in texts} - {None}
    seconds = int(BASE.timestamp())
    folder = tmp_path / "source"
    folder.mkdir()
    users = [f"{text}\t{ITEM}\t4\t{seconds + number}" for number, text in enumerate(texts)]
    items = [f"{USER}\t{text}\t4\t{seconds + 1000 + number}" for number, text in enumerate(texts)]
    for name, lines in (
        ("u.data", users + items),
        ("u.item", [f"{text}|A film (1995)|01-Jan-1995||http://x|{flags}" for text in (ITEM, *texts)]),
        ("u.user", [f"{text}|24|M|other|85711" for text in (USER, *texts)]),
    ):
        (folder / name).write_bytes("".join(f"{line}\n" for line in lines).encode("latin-1"))
    check_published(tmp_path, folder, texts, ids)


def test_movielens_csv(tmp_path: Path) -> None:
    texts = [text for text in fitting(",", "utf-8") if '"' not in text]
    ids = {NASTY_IDS[text] for text in texts} - {None}
    seconds = int(BASE.timestamp())
    folder = tmp_path / "source"
    folder.mkdir()
    users = [f"{text},{ITEM},4,{seconds + number}" for number, text in enumerate(texts)]
    items = [f"{USER},{text},4,{seconds + 1000 + number}" for number, text in enumerate(texts)]
    for name, lines in (
        ("ratings.csv", ["userId,movieId,rating,timestamp", *users, *items]),
        ("movies.csv", ["movieId,title,genres", *(f"{text},A film (1995),Drama" for text in (ITEM, *texts))]),
    ):
        (folder / name).write_bytes("".join(f"{line}\n" for line in lines).encode())
    check_published(tmp_path, folder, texts, ids)


def check_published(tmp_path: Path, folder: Path, texts: Sequence[str], ids: set[str | None]) -> None:
    settings = Settings(state=tmp_path / "state", quarantine_limit=0.99)
    place = Namespace(settings.state, "nasty")
    ingest.run(settings, place, folder, None, CLOCK)
    expected = {text: NASTY_IDS[text] for text in texts}
    assert taken_in(place, "user_id", texts, 0) == expected
    assert taken_in(place, "item_id", texts, 1000) == expected
    assert {row["item_id"] for row in stored(place, items_dataset(MOVIELENS))} == {ITEM, *ids}
    assert {row["user_id"] for row in stored(place, users_dataset(MOVIELENS))} == {USER, *ids}
