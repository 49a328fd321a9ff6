"""Ingestion: what is stored, what is refused with which reason, and what stops it as a whole."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.datasets import EVENTS, QUARANTINE
from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.places import DATASET_MANIFEST, Namespace
from pipelines.errors import (
    CorruptDatasetError,
    DatasetChangedError,
    LockedError,
    QuarantineLimitError,
    SourceError,
)
from pipelines.io import lake
from pipelines.io.lake import Snapshot, stored_dataset
from pipelines.jobs import describe, ingest
from pipelines.settings import Settings
from pipelines.sources.detection import namespace_of
from pipelines.sources.mode import Mode
from tests.movielens import ITEMS, USERS
from tests.synthetic import write_movielens_100k

if TYPE_CHECKING:
    from collections.abc import Mapping

CLOCK = datetime(2026, 1, 1, tzinfo=UTC)
FLAGS = "0|1|0|0|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0"
GOOD_EVENTS = ("1\t10\t4\t880000000", "1\t20\t3\t880000000", "2\t10\t5\t880000100")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path / "state", quarantine_limit=0.5)


@pytest.fixture
def place(settings: Settings) -> Namespace:
    return Namespace(settings.state, "test")


def write_100k(
    folder: Path,
    events: tuple[str, ...] = GOOD_EVENTS,
    items: tuple[str, ...] = (
        f"10|Toy Story (1995)|01-Jan-1995||http://x|{FLAGS}",
        f"20|Mis\xe9rables, Les (1995)|01-Jan-1995||http://x|{FLAGS}",
    ),
    users: tuple[str, ...] = ("1|24|M|technician|85711", "2|53|F|other|94043"),
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("u.data", events), ("u.item", items), ("u.user", users)):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="latin-1")
    return folder


def write_csv(folder: Path, ratings: str | bytes, movies: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("ratings.csv", ratings), ("movies.csv", movies)):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


RATINGS = "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,0.5,964981247\n"
MOVIES = 'movieId,title,genres\n1,"American President, The (1995)",Comedy|Drama\n3,Babylon 5,(no genres listed)\n'


def stored(place: Namespace, dataset: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = stored_dataset(place, dataset).snapshot().read().to_pylist()
    return rows


def run(settings: Settings, place: Namespace, source: Path, cutoff: datetime | None = None) -> Mapping[str, Any]:
    return ingest.run(settings, place, source, cutoff, CLOCK)


def test_100k_is_stored_in_canonical_form(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    result = run(settings, place, write_100k(tmp_path / "s"))
    assert (result["events"], result["items"], result["users"], result["quarantined"]) == (3, 2, 2, 0)
    assert result["cutoff"] == "1997-11-21T00:00:00Z"
    assert stored(place, EVENTS)[0] == {
        "user_id": "1",
        "item_id": "10",
        "event_type": "rating",
        "value": 4.0,
        "event_time": datetime(1997, 11, 20, 4, 26, 40, tzinfo=UTC),
    }
    assert stored(place, ITEMS)[1] == {
        "item_id": "20",
        "title": "Misérables, Les",
        "release_year": 1995,
        "genres": ["Action", "Comedy"],
    }
    assert stored(place, USERS)[1] == {"user_id": "2", "age": 53, "gender": "F", "occupation": "other"}


def test_csv_has_quoted_titles_and_no_users(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    run(settings, place, write_csv(tmp_path / "s", RATINGS.replace("\n", "\r\n"), "\ufeff" + MOVIES))
    items = stored(place, ITEMS)
    assert [item["title"] for item in items] == ["American President, The", "Babylon 5"]
    assert [item["release_year"] for item in items] == [1995, None]
    assert [item["genres"] for item in items] == [["Comedy", "Drama"], []]
    assert stored(place, USERS) == [{"user_id": "1", "age": None, "gender": None, "occupation": None}]


def test_ids_of_csv_may_stand_in_quotes(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    ratings = (
        '"userId","movieId","rating","timestamp"\n"1", "10" ,"4.0","880000000"\n2,10,3.0,880000100\n"3,10,3,880000200\n'
    )
    result = run(settings, place, write_csv(tmp_path, ratings, "movieId,title,genres\n10,Heat (1995),Crime\n"))
    assert (result["events"], result["quarantined"]) == (2, 1)
    assert {(row["user_id"], row["item_id"]) for row in stored(place, EVENTS)} == {("1", "10"), ("2", "10")}
    assert [(row["line"], row["reason"]) for row in stored(place, QUARANTINE)] == [(4, "bad_quotes")]


def write_1m(folder: Path, more: str) -> Path:
    for name, lines in (
        ("ratings.dat", "1::10::5::978300760\n2::10::4::978300761\n"),
        ("movies.dat", "10::Heat (1995)::Crime\n"),
        ("users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n"),
    ):
        (folder / name).write_text(lines + more, encoding="latin-1")
    return folder


@pytest.mark.parametrize("more", ["\n", "\n\n", "\r\n \r\n", "   "])
def test_blank_lines_are_no_rows(settings: Settings, place: Namespace, tmp_path: Path, more: str) -> None:
    result = run(settings, place, write_1m(tmp_path, more))
    assert (result["events"], result["items"], result["users"], result["quarantined"]) == (2, 1, 2, 0)


def test_line_ends_of_old_macs_are_told(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    path = write_1m(tmp_path, "") / "ratings.dat"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    with pytest.raises(SourceError, match=r"ratings\.dat, line 1: expected lines that end with LF.*`tr"):
        run(settings, place, tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf"])
def test_a_part_may_have_empty_files(settings: Settings, place: Namespace, tmp_path: Path, content: bytes) -> None:
    source = write_1m(tmp_path, "")
    run(settings, place, source)
    (source / "ratings.dat").write_text("1::10::3::978300769\n", encoding="utf-8")
    for name in ("movies.dat", "users.dat"):
        (source / name).write_bytes(content)
    result = ingest.run(settings, place, source, None, CLOCK, mode=Mode.PART)
    assert (result["events"], result["items"], result["users"]) == (3, 1, 2)


def test_1m_is_read(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n1::661::3::978302109\n")
    (tmp_path / "movies.dat").write_bytes(
        b"1193::Caf\xe9 au Lait (1993)::Comedy\n661::James and the Giant Peach (1996)::Animation|Children's\n"
    )
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n")
    assert run(settings, place, tmp_path)["events"] == 2
    assert stored(place, USERS) == [{"user_id": "1", "age": 1, "gender": "F", "occupation": "10"}]
    assert stored(place, ITEMS)[0]["title"] == "Café au Lait"


def test_recbole_is_read(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    (tmp_path / "a.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t4\t881250949\n"
    )
    (tmp_path / "a.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n2\tToy Story\t1995\tComedy War\n"
    )
    (tmp_path / "a.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n1\t24\tM\twriter\t1\n"
    )
    assert run(settings, place, tmp_path)["events"] == 1
    assert stored(place, ITEMS) == [
        {"item_id": "2", "title": "Toy Story", "release_year": 1995, "genres": ["Comedy", "War"]}
    ]


def test_a_zip_gives_what_its_folder_gives(settings: Settings, tmp_path: Path) -> None:
    folder = write_movielens_100k(tmp_path / "ml", users=10, items=20, events=80)
    with zipfile.ZipFile(tmp_path / "ml.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, f"ml-100k/{file.name}")
    results = [
        run(settings, Namespace(settings.state, name), source)
        for name, source in (("a", folder), ("b", tmp_path / "ml.zip"))
    ]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("line", "column", "reason", "received"),
    [
        ("1\t10\tfive\t880000200", "rating", "bad_number", "five"),
        ("1\t10\tNaN\t880000200", "rating", "not_a_number", "NaN"),
        ("1\t10\t5.5\t880000200", "rating", "out_of_range", "5.5"),
        ("1\t10\t0\t880000200", "rating", "out_of_range", "0"),
        ("1\t10\tinf\t880000200", "rating", "out_of_range", "inf"),
        ("1\t10\t1e300\t880000200", "rating", "out_of_range", "1e300"),
        ("1\t10\t3.7\t880000200", "rating", "not_a_whole_step", "3.7"),
        ("1\t10\t3\tyesterday", "timestamp", "bad_time", "yesterday"),
        ("1\t10\t3\t1e300", "timestamp", "bad_time", "1e300"),
        ("1\t10\t3\t-1", "timestamp", "bad_time", "-1"),
        ("1\t10\t3\t880000200.5", "timestamp", "bad_time", "880000200.5"),
        ("1\t10\t3\t4102444800", "timestamp", "future_time", "4102444800"),
        ("1\t10\t3", "timestamp", "missing_field", "1\t10\t3"),
        ("10", "item id", "missing_field", "10"),
        ("1\t10\t3\t880000200\t9", "", "too_many_fields", "1\t10\t3\t880000200\t9"),
        ("\t10\t3\t880000200", "user id", "missing_user", ""),
        ("1\t\t3\t880000200", "item id", "missing_item", ""),
        ("1\t99\t3\t880000200", "item id", "unknown_item", "99"),
        ("1\t10\t5\t880000000", "", "duplicate_event", "1 10 rating 1997-11-20T04:26:40Z"),
    ],
)
def test_a_bad_event_is_quarantined_with_its_place_and_reason(  # noqa: PLR0917 - fixtures and parameters
    settings: Settings, place: Namespace, tmp_path: Path, line: str, column: str, reason: str, received: str
) -> None:
    source = write_100k(tmp_path / "s", (*GOOD_EVENTS[:2], line, *GOOD_EVENTS[2:]))
    if reason == "duplicate_event":
        assert stored_value(settings, place, source) == 4.0, "the first of two equal events is kept"
    result = run(settings, place, source)
    assert (result["events"], result["quarantined"]) == (3, 1)
    (row,) = stored(place, QUARANTINE)
    assert row.pop("expected")
    assert row == {"file": "u.data", "line": 3, "column": column, "reason": reason, "received": received}


def stored_value(settings: Settings, place: Namespace, source: Path) -> float:
    run(settings, place, source)
    return float(stored(place, EVENTS)[0]["value"])


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        (f"20|Again (1995)|01-Jan-1995||http://x|{FLAGS}", "movie id", "duplicate_item"),
        ("30|Short (1995)|01-Jan-1995", "video release date", "missing_field"),
        (f"30|Long|01-Jan-1995||http://x|{FLAGS}|0", "", "too_many_fields"),
        (f"30|Flag|01-Jan-1995||http://x|{FLAGS[:-1]}2", "Western", "bad_flag"),
        (f"|No id|01-Jan-1995||http://x|{FLAGS}", "movie id", "missing_field"),
    ],
)
def test_a_bad_item_is_quarantined(  # noqa: PLR0917 - fixtures and parameters
    settings: Settings, place: Namespace, tmp_path: Path, line: str, column: str, reason: str
) -> None:
    good = (f"10|A (1995)|01-Jan-1995||http://x|{FLAGS}", f"20|B (1995)|01-Jan-1995||http://x|{FLAGS}")
    assert run(settings, place, write_100k(tmp_path / "s", items=(*good, line)))["items"] == 2
    (row,) = stored(place, QUARANTINE)
    assert (row["file"], row["line"], row["column"], row["reason"]) == ("u.item", 3, column, reason)


def test_a_bad_user_is_quarantined_and_known_by_the_events_only(
    settings: Settings, place: Namespace, tmp_path: Path
) -> None:
    source = write_100k(
        tmp_path / "s", users=("1|24|M|technician|85711", "2|old|F|other|1", "1|30|F|artist|1", "3|1|F|artist|1")
    )
    assert run(settings, place, source)["quarantined"] == 2
    assert [(row["line"], row["column"], row["reason"]) for row in stored(place, QUARANTINE)] == [
        (2, "age", "bad_number"),
        (3, "user id", "duplicate_user"),
    ]
    users = stored(place, USERS)
    assert [user["user_id"] for user in users] == ["1", "2", "3"]
    assert users[0]["age"] == 24
    assert users[1] == {"user_id": "2", "age": None, "gender": None, "occupation": None}


def test_undecodable_bytes_are_quarantined(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    movies = MOVIES.encode() + "4,Amélie (2001),Comedy\n".encode() + b"5,Caf\xe9 (2000),Drama\n"
    run(settings, place, write_csv(tmp_path / "s", RATINGS, movies))
    (row,) = stored(place, QUARANTINE)
    assert (row["file"], row["line"], row["reason"], row["expected"]) == (
        "movies.csv",
        5,
        "undecodable_bytes",
        "UTF-8 text",
    )


def test_unclosed_quotes_are_quarantined(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    run(settings, place, write_csv(tmp_path / "s", RATINGS, MOVIES + '4,"Open (1999),Drama\n'))
    (row,) = stored(place, QUARANTINE)
    assert (row["line"], row["reason"]) == (4, "bad_quotes")


def test_what_was_received_is_cut(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    run(settings, place, write_100k(tmp_path / "s", (*GOOD_EVENTS, f"1\t10\t{'9' * 500}\t880000300")))
    assert len(stored(place, QUARANTINE)[0]["received"]) == 200


@pytest.mark.parametrize(
    ("ratings", "movies", "words"),
    [
        ("userId,movieId,stars,timestamp\n1,1,4,1\n", MOVIES, ["ratings.csv", "line 1", "'rating'", "stars"]),
        ("userId,movieId,timestamp\n1,1,1\n", MOVIES, ["ratings.csv", "line 1", "'rating'"]),
        (RATINGS.replace(",", ";"), MOVIES, ["ratings.csv", "line 1", "comma", "semicolon"]),
        ("movieId,userId,rating,timestamp\n1,1,4,1\n", MOVIES, ["ratings.csv", "line 1", "userId,movieId,rating"]),
        ("", MOVIES, ["ratings.csv", "empty file"]),
        ("userId,movieId,rating,timestamp\n", MOVIES, ["ratings.csv", "below the header"]),
        (RATINGS.encode("utf-16"), MOVIES, ["ratings.csv", "UTF-8", "UTF-16"]),
        (RATINGS, "movieId,title,genres\n1,Café (1999),Drama\n".encode("latin-1"), ["movies.csv", "line 2", "UTF-8"]),
        (RATINGS, "", ["movies.csv", "empty file"]),
    ],
)
def test_a_file_that_is_wrong_throughout_stops_the_ingestion(  # noqa: PLR0917 - fixtures and parameters
    settings: Settings,
    place: Namespace,
    tmp_path: Path,
    ratings: str | bytes,
    movies: str | bytes,
    words: list[str],
) -> None:
    source = write_csv(tmp_path / "s", ratings, movies)
    with pytest.raises(SourceError) as caught:
        run(settings, place, source)
    assert caught.value.exit_code is ExitCode.TERMINAL
    for word in (*words, "expected", "received"):
        assert word in str(caught.value)
    assert not place.dataset("events").exists()


def test_another_separator_in_a_file_without_header_is_named(
    settings: Settings, place: Namespace, tmp_path: Path
) -> None:
    source = write_100k(tmp_path / "s", tuple(line.replace("\t", ",") for line in GOOD_EVENTS))
    with pytest.raises(SourceError, match=r"u\.data, line 1: expected fields parted by tab, received .* comma"):
        run(settings, place, source)


def test_a_column_missing_throughout_is_named(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    source = write_100k(tmp_path / "s", tuple(line.rpartition("\t")[0] for line in GOOD_EVENTS))
    with pytest.raises(SourceError, match=r"line 1, column 'timestamp': expected 4 fields .*, received 3"):
        run(settings, place, source)


def test_utf8_where_latin_1_is_published_is_named(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    source = write_100k(tmp_path / "s")
    text = (source / "u.item").read_text(encoding="latin-1")
    (source / "u.item").write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=r"u\.item, line 2: expected Latin-1 text, received UTF-8"):
        run(settings, place, source)


def zip_of(path: Path, tmp_path: Path) -> Path:
    folder = write_movielens_100k(tmp_path / "folder", users=30, items=40, events=500)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return path


def test_a_truncated_zip_is_named(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "ml.zip", tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SourceError, match=r"ml\.zip: expected a whole zip, received a truncated"):
        run(settings, place, path)


def test_a_zip_with_damaged_data_is_named(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "ml.zip", tmp_path)
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"u\.data: expected a whole zip member, received damaged data"):
        run(settings, place, path)


@pytest.mark.parametrize("name", ["../u.data", "/etc/u.data", "a/../../u.data", "..\\u.data", "C:/u.data"])
def test_a_zip_that_leaves_itself_is_refused(settings: Settings, place: Namespace, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(SourceError, match="paths inside the zip"):
        run(settings, place, tmp_path / "ml.zip")


def test_an_unknown_folder_is_told_what_is_expected(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match=r"Found: notes\.txt.*u\.data, u\.item, u\.user"):
        run(settings, place, tmp_path)


def test_two_data_sets_in_one_folder_are_refused(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    write_100k(tmp_path / "a")
    write_100k(tmp_path / "b")
    with pytest.raises(SourceError, match="found 2"):
        run(settings, place, tmp_path)


def test_too_many_refusals_stop_the_ingestion_and_say_why(place: Namespace, tmp_path: Path) -> None:
    strict = Settings(state=place.state, quarantine_limit=0.2)
    source = write_100k(
        tmp_path / "s", (*GOOD_EVENTS, "1\t10\t9\t880000200", "1\t99\t3\t880000200", "1\t98\t3\t880000200")
    )
    with pytest.raises(QuarantineLimitError) as caught:
        run(strict, place, source)
    for words in ("u.data: 3 of 6 rows", "50.00%", "20.00%", "unknown_item: 2, first in line 5", "out_of_range: 1"):
        assert words in str(caught.value)
    assert not place.dataset("events").exists()


def test_a_second_ingestion_changes_nothing(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    source = write_movielens_100k(tmp_path / "ml", users=20, items=30, events=200)
    first = run(settings, place, source)
    files = {path: path.stat().st_mtime_ns for path in place.root.rglob("*.*") if path.suffix != ".lock"}
    second = run(settings, place, source)
    assert second == {**first, "changed_partitions": 0}
    assert files == {path: path.stat().st_mtime_ns for path in place.root.rglob("*.*") if path.suffix != ".lock"}


def test_the_order_of_lines_does_not_matter(settings: Settings, tmp_path: Path) -> None:
    source = write_movielens_100k(tmp_path / "ml", users=20, items=30, events=200)
    first = run(settings, Namespace(settings.state, "a"), source)
    lines = (source / "u.data").read_text().splitlines(keepends=True)
    (source / "u.data").write_text("".join(reversed(lines)))
    assert run(settings, Namespace(settings.state, "b"), source)["checksum"] == first["checksum"]


def test_events_from_the_cutoff_on_are_left_for_later(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    source = write_100k(tmp_path / "s", (*GOOD_EVENTS, "2\t20\t1\t880070400", "1\t20\t1\t890000000"))
    cutoff = datetime(1997, 11, 21, tzinfo=UTC)
    assert int(cutoff.timestamp()) == 880070400
    early = run(settings, place, source, cutoff)
    assert early["events"] == 3
    full = run(settings, place, source)
    assert full["events"] == 5
    again = run(settings, place, source, cutoff)
    assert again == {**early, "changed_partitions": 0}
    assert len(stored(place, EVENTS)) == 5, "a past interval leaves later partitions alone"


def test_a_cutoff_before_the_first_event_is_refused(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"expected events before the cutoff 1990-01-01.*1997-11-20 04:26:40"):
        run(settings, place, write_100k(tmp_path / "s"), datetime(1990, 1, 1, tzinfo=UTC))


def test_partitions_that_lost_their_events_are_removed(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    first = run(settings, place, write_100k(tmp_path / "s", (*GOOD_EVENTS, "1\t20\t1\t880090000")))
    assert first["events"] == 4
    run(settings, place, write_100k(tmp_path / "s"))
    assert [path.parent.name for path in place.dataset("events").rglob("*.parquet")] == ["event_date=1997-11-20"]


def test_a_second_writer_is_told_to_wait(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    source = write_100k(tmp_path / "s")
    with stored_dataset(place, EVENTS).locked(), pytest.raises(LockedError) as caught:
        run(settings, place, source)
    assert caught.value.exit_code is ExitCode.TRANSIENT


def changed_file(place: Namespace) -> Path:
    file = next(place.dataset("events").rglob("*.parquet"))
    table = pq.read_table(file, partitioning=None)
    pq.write_table(table.slice(1), file)
    return file


def test_a_value_that_is_almost_a_whole_step_is_that_step(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "s", RATINGS.replace("1,1,4.0,", "1,1,4.0000004,"), MOVIES)
    assert run(settings, place, source)["quarantined"] == 0
    assert stored_dataset(place, EVENTS).snapshot().read().column("value").to_pylist() == [0.5, 4.0]


def test_a_file_changed_by_hand_is_found_and_the_next_run_mends_it(
    settings: Settings, place: Namespace, tmp_path: Path
) -> None:
    source = write_100k(tmp_path / "s")
    first = run(settings, place, source)
    file = changed_file(place)
    with pytest.raises(CorruptDatasetError, match=file.parent.name):
        stored_dataset(place, EVENTS).snapshot()
    with stored_dataset(place, EVENTS).locked(), pytest.raises(DatasetChangedError):
        stored_dataset(place, EVENTS).snapshot()
    assert run(settings, place, source)["checksum"] == first["checksum"]
    assert stored_dataset(place, EVENTS).snapshot().checksum == first["checksum"]


def test_a_file_that_the_manifest_does_not_name_is_found(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    run(settings, place, write_100k(tmp_path / "s"))
    file = next(place.dataset("events").rglob("*.parquet"))
    stray = file.parent.parent / "event_date=1990-01-01" / file.name
    stray.parent.mkdir()
    stray.write_bytes(file.read_bytes())
    with pytest.raises(CorruptDatasetError, match="1990-01-01"):
        stored_dataset(place, EVENTS).snapshot()


def test_a_reader_notices_a_writer_that_came_between(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    run(settings, place, write_100k(tmp_path / "s"))
    more = write_100k(tmp_path / "s", (*GOOD_EVENTS, "2\t20\t2\t880000300"))
    with pytest.raises(DatasetChangedError), stored_dataset(place, EVENTS).reading() as snapshot:
        assert isinstance(snapshot, Snapshot)
        run(settings, place, more)


def test_a_reader_notices_a_writer_that_was_killed_between_two_renames(
    settings: Settings, place: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(settings, place, write_100k(tmp_path / "s"))
    table = stored_dataset(place, EVENTS)
    manifest = (table.folder / DATASET_MANIFEST).read_bytes()
    with pytest.raises(DatasetChangedError, match="rewritten while it was read"), table.reading() as snapshot:
        first = next(iter(snapshot.partitions))
        changed = snapshot.read().slice(0, 1).set_column(3, "value", pa.array([1.5], pa.float32()))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), table.rewriting() as writer:
            patch.setattr(lake, "sync_directory", Mock(side_effect=KeyboardInterrupt))
            writer.add(first, changed)
        assert (table.folder / DATASET_MANIFEST).read_bytes() == manifest, "the writer did not come as far"


def test_what_a_reader_fails_of_is_the_writer_that_came_between(
    settings: Settings, place: Namespace, tmp_path: Path
) -> None:
    run(settings, place, write_100k(tmp_path / "s"))
    more = write_100k(tmp_path / "s", (*GOOD_EVENTS, "2\t20\t2\t880000300"))
    with pytest.raises(DatasetChangedError), stored_dataset(place, EVENTS).reading() as snapshot:
        run(settings, place, more)
        raise FileNotFoundError(snapshot.folder)
    with pytest.raises(FileNotFoundError), stored_dataset(place, EVENTS).reading():
        raise FileNotFoundError


def test_a_manifest_that_is_none_is_named(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    run(settings, place, write_100k(tmp_path / "s"))
    (place.dataset("events") / DATASET_MANIFEST).write_text('{"partitions": {"all": {"rows": 1}}}')
    with pytest.raises(CorruptDatasetError, match="not a table's manifest"):
        stored_dataset(place, EVENTS).snapshot()


@pytest.mark.parametrize(
    ("name", "namespace"),
    [("ml-100k", "ml-100k"), ("ML_Latest Small.zip", "ml-latest-small"), ("ml.25m", "ml-25m"), ("-x-", "x")],
)
def test_a_namespace_comes_from_the_path(name: str, namespace: str) -> None:
    assert namespace_of(Path("/data") / name) == namespace


def test_a_path_without_letters_gives_no_namespace() -> None:
    with pytest.raises(SourceError, match="rename it"):
        namespace_of(Path("/data/…"))


def test_describe_agrees_with_the_ingestion(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    source = zip_of(tmp_path / "Movie Lens.zip", tmp_path)
    said = describe.run(settings, source)
    done = run(settings, place, source)
    assert said["namespace"] == "movie-lens"
    assert (said["events"], said["cutoff"], said["layout"]) == (done["events"], done["cutoff"], "MovieLens 100K")
    assert said["training_rows"] == said["events"]
