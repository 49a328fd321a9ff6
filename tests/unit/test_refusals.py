"""What an ingestion says of the rows that it refused."""

from __future__ import annotations

import pytest

from pipelines.checks.refusals import Refusal, check_limit, refusal_table, told_of
from pipelines.errors import QuarantineLimitError


def test_files_beyond_the_first_ten_are_counted() -> None:
    rows = [Refusal(f"day-{day:02}.csv", 7, "at", "bad_time", "a time", "soon") for day in range(12)]
    first, *others, last = told_of(refusal_table(rows), is_mapped=True)
    assert first.startswith("day-00.csv: rows refused: 1, ")
    assert [line.partition(":")[0] for line in others] == [f"day-{day:02}.csv" for day in range(1, 10)]
    assert last == "refused rows of further files: 2 files, all in the lake's quarantine"
    assert len(told_of(refusal_table(rows[:10]), is_mapped=True)) == 10


def judge(rows: int, refused: int, limit: float) -> None:
    bad = [Refusal("a.csv", number, "at", "bad_time", "a time", "soon") for number in range(refused)]
    check_limit({"a.csv": rows}, refusal_table(bad), limit, is_mapped=True)


def test_a_few_rows_of_a_small_file_do_not_refuse_it() -> None:
    for rows, refused in ((21, 1), (10, 1), (50, 5), (300, 5), (1000, 10)):
        judge(rows, refused, 0.01)
    for rows, refused in ((9, 1), (21, 3), (4, 3), (300, 6), (1000, 11)):
        with pytest.raises(QuarantineLimitError, match=f"{refused} of {rows:,}"):
            judge(rows, refused, 0.01)


def test_a_limit_of_nothing_lets_nothing_pass() -> None:
    with pytest.raises(QuarantineLimitError):
        judge(1000, 1, 0.0)


@pytest.mark.parametrize(
    ("reason", "received", "words"),
    [
        ("bad_number", ["NULL", r"\N", "NULL"], r"say missing: ['NULL', '\\N']"),
        ("not_a_number", ["NaN"], "say missing: ['NaN']"),
        ("bad_number", ["nan"], "events.skip, missing: true"),
        ("bad_number", [""], "events.skip, missing: true"),
        ("bad_number", ["0,50", "-12,5"], "csv.decimal: ','"),
        ("bad_time", ["11/14/2023 10:13 PM"], "events.time.format: '%m/%d/%Y %I:%M %p'"),
        ("bad_time", ["03/04/2023", "14/11/2023"], "'%d/%m/%Y'"),
        ("bad_time", ["14.11.2023 22:13"], "'%d.%m.%Y %H:%M'"),
        ("bad_time", ["2023/11/14 22:13:05"], "'%Y/%m/%d %H:%M:%S'"),
        ("bad_time", ["1700000000"], "events.time.unit"),
        ("duplicate_event", ["u a"], "events.duplicates"),
        ("undecodable_bytes", ["\ufffd"], "csv.encoding"),
        ("missing_user", [""], "events.skip; of items, users or relations, out of the file"),
        ("bad_id", ["N/A"], "missing: ['N/A']"),
        ("too_many_fields", ["u1,i1,1,"], "Give the header a name for it"),
        ("too_many_fields", [r'u1,"a \"b, c\""'], "option escape"),
        ("open_quote", [r'u1,"a \"b'], "option escape"),
        ("not_a_whole_step", ["1.5"], "events.value.step"),
    ],
)
def test_the_remedy_is_the_key_of_the_mapping(reason: str, received: list[str], words: str) -> None:
    bad = refusal_table(Refusal("a.csv", line, "c", reason, "x", text) for line, text in enumerate(received))
    (told,) = told_of(bad, is_mapped=True)
    assert words in told
    assert words not in told_of(bad, is_mapped=False)[0]
