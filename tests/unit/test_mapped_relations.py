"""Who follows whom, as a mapping says it: what is stored, what is refused, and what a part changes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from feature_repo.contracts.datasets import QUARANTINE, RELATIONS, users_dataset
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import read_schema
from pipelines.errors import ChecksFailedError, QuarantineLimitError, SourceError
from pipelines.io.lake import UNDIVIDED, stored_dataset
from pipelines.jobs import check, ingest
from pipelines.settings import Settings
from pipelines.sources.mode import Mode
from tests.shop_log import CLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAPPING = """\
name: Friends
feedback: implicit
event_types: {view: {}}
positive: {event_types: view}
events: {files: events.csv, user: user, item: item, time: at, type: {constant: view}, value: {constant: 1}}
relations:
  files: follows.csv
  user: {column: who, whole_number: true}
  other: {column: whom, whole_number: true}
"""
DATED = f"{MAPPING}  since: {{column: day, format: '%d/%m/%Y', zone: Europe/Paris}}\n"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CUTOFF = datetime(2024, 3, 2, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path / "state", quarantine_limit=0.5)


@pytest.fixture
def place(settings: Settings) -> Namespace:
    return Namespace(settings.state, "friends")


def run(settings: Settings, *follows: str, mapping: str = MAPPING, mode: Mode = Mode.WHOLE) -> Mapping[str, Any]:
    folder = settings.state.parent / "source"
    folder.mkdir(exist_ok=True)
    (folder / "events.csv").write_text("user,item,at\n1,a,2024-03-01T10:00:00\n2,b,2024-03-01T11:00:00\n")
    path = folder / "follows.csv"
    path.unlink(missing_ok=True)
    if follows:
        path.write_text("".join(f"{line}\n" for line in ("who,whom,day", *follows)))
    (folder / "m.yaml").write_text(mapping)
    place = Namespace(settings.state, "friends")
    return ingest.run(settings, place, folder, None, CLOCK, folder / "m.yaml", mode)


def stored(place: Namespace) -> list[tuple[str, str, datetime]]:
    rows = stored_dataset(place, RELATIONS).snapshot().read().to_pylist()
    return [(row["user_id"], row["other_user_id"], row["since"]) for row in rows]


def test_without_a_time_everybody_follows_since_ever_and_is_a_user(settings: Settings, place: Namespace) -> None:
    result = run(settings, "1.0,2,", "2,9,", "1,2,")
    assert stored(place) == [("1", "2", EPOCH), ("2", "9", EPOCH)], "said twice is no mistake"
    assert result["quarantined"] == 0
    assert read_schema(place).has_relations
    users = stored_dataset(place, users_dataset(read_schema(place))).snapshot().read()
    assert users.column("user_id").to_pylist() == ["1", "2", "9"]


def test_a_time_is_read_as_the_mapping_says_and_the_earliest_counts(settings: Settings, place: Namespace) -> None:
    run(settings, "1,2,05/01/2024", "1,2,04/01/2024", mapping=DATED)
    assert stored(place) == [("1", "2", datetime(2024, 1, 3, 23, tzinfo=UTC))]


@pytest.mark.parametrize(
    ("line", "column", "reason", "received"),
    [
        (",2,04/01/2024", "who", "missing_user", ""),
        ("1,,04/01/2024", "whom", "missing_user", ""),
        (f"1,{'x' * 129},04/01/2024", "whom", "bad_id", "x" * 129),
        ("1,1.0,04/01/2024", "whom", "follows_itself", "1.0"),
        ("1,2,2024-01-04", "day", "bad_time", "2024-01-04"),
        ("1,2,", "day", "bad_time", ""),
        ("1,2,04/01/2027", "day", "future_time", "04/01/2027"),
        ("1,2", "day", "missing_field", "1,2"),
        ("1,2,04/01/2024,x", "", "too_many_fields", "1,2,04/01/2024,x"),
    ],
)
def test_a_bad_row_is_quarantined_with_its_place_and_reason(  # noqa: PLR0917 - fixtures and parameters
    settings: Settings, place: Namespace, line: str, column: str, reason: str, received: str
) -> None:
    result = run(settings, "1,9,04/01/2024", line, "2,9,04/01/2024", mapping=DATED)
    assert result["quarantined"] == 1
    (row,) = stored_dataset(place, QUARANTINE).snapshot().read().to_pylist()
    told = (row["file"], row["line"], row["column"], row["reason"], row["received"])
    assert told == ("follows.csv", 3, column, reason, received)
    assert row["expected"]
    assert [(user, other) for user, other, _ in stored(place)] == [("1", "9"), ("2", "9")]


def test_too_many_bad_rows_leave_the_lake_as_it_was(settings: Settings, place: Namespace) -> None:
    run(settings, "1,2,")
    with pytest.raises(QuarantineLimitError, match=r"follows\.csv"):
        run(settings, "1,1,", "2,2,", "2,1,")
    assert stored(place) == [("1", "2", EPOCH)]


def test_a_part_adds_relations_and_one_without_their_file_leaves_them(settings: Settings, place: Namespace) -> None:
    run(settings, "1,2,04/01/2024", mapping=DATED)
    assert run(settings, "1,2,04/01/2024", mapping=DATED, mode=Mode.PART)["changed_partitions"] == 0
    run(settings, "2,1,05/01/2024", "1,2,01/01/2024", mapping=DATED, mode=Mode.PART)
    both = [("1", "2", datetime(2023, 12, 31, 23, tzinfo=UTC)), ("2", "1", datetime(2024, 1, 4, 23, tzinfo=UTC))]
    assert stored(place) == both
    assert run(settings, mapping=DATED, mode=Mode.PART)["changed_partitions"] == 0
    assert stored(place) == both


def test_a_whole_source_without_the_file_is_refused(settings: Settings) -> None:
    with pytest.raises(SourceError, match=r"relations\.files: expected a file that fits 'follows\.csv'"):
        run(settings)


def test_a_part_that_says_nothing_of_relations_is_of_another_data_set(settings: Settings) -> None:
    run(settings, "1,2,")
    with pytest.raises(SourceError, match="has_relations"):
        run(settings, mapping=MAPPING.partition("relations:")[0], mode=Mode.PART)


def test_what_lies_in_the_lake_is_checked(settings: Settings, place: Namespace) -> None:
    run(settings, "1,2,")
    result = check.run(settings, place, CUTOFF, None)
    assert result["errors"] == 0
    with stored_dataset(place, RELATIONS).rewriting() as writer:
        rows = writer.current(UNDIVIDED).to_pylist()
        table = writer.current(UNDIVIDED).from_pylist(
            [*rows, {**rows[0], "other_user_id": "nobody"}], schema=writer.current(UNDIVIDED).schema
        )
        writer.add(UNDIVIDED, table)
    with pytest.raises(ChecksFailedError, match=r"relations\.other_user_id\.reference"):
        check.run(settings, place, CUTOFF, None)
