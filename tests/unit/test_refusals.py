"""What an ingestion says of the rows that it refused."""

from __future__ import annotations

from pipelines.checks.refusals import Refusal, refusal_table, told_of


def test_files_beyond_the_first_ten_are_counted() -> None:
    rows = [Refusal(f"day-{day:02}.csv", 7, "at", "bad_time", "a time", "soon") for day in range(12)]
    first, *others, last = told_of(refusal_table(rows))
    assert first.startswith("day-00.csv: rows refused: 1, ")
    assert [line.partition(":")[0] for line in others] == [f"day-{day:02}.csv" for day in range(1, 10)]
    assert last == "refused rows of further files: 2 files, all in the lake's quarantine"
    assert len(told_of(refusal_table(rows[:10]))) == 10
