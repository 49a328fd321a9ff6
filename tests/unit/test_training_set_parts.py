from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.contracts.columns import Column, Dtype, Encoding
from feature_repo.contracts.features import declared
from feature_repo.contracts.manifests import TrainingKind
from feature_repo.contracts.schemas import MOVIELENS
from pipelines.errors import JobError
from pipelines.feast_store.errors import RowCountError
from pipelines.feast_store.retrieval import fill_missing
from pipelines.feast_store.store import connection_string
from pipelines.io.online_client import redacted
from pipelines.settings import Settings
from pipelines.training import files, identity
from pipelines.training.errors import TrainingDataError
from pipelines.training.files import RowGroupWriter, beside, cut, stored_sha256
from pipelines.training.identity import settings_inputs
from pipelines.training.splits import moment, split_by_time

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.schemas import Schema

SECOND = 1_000_000


def alternating(rows: int) -> np.ndarray:
    return np.arange(rows) % 2


@given(
    seconds=st.lists(st.integers(0, 40), min_size=30, max_size=200).map(sorted),
    micro=st.integers(0, 900_000),
    shares=st.tuples(st.floats(0.1, 0.7), st.floats(0.1, 0.25)),
)
def test_rows_of_one_second_are_never_parted(seconds: list[int], micro: int, shares: tuple[float, float]) -> None:
    times = np.array(seconds) * SECOND + np.linspace(0, micro, len(seconds)).astype(int)
    times.sort()
    try:
        splits = split_by_time(times, alternating(len(times)), *shares)
    except TrainingDataError:
        return
    assert sum(splits.rows.values()) == len(times)
    first = splits.train_rows, splits.train_rows + splits.valid_rows
    for row, end in zip(first, (splits.train_end_us, splits.valid_end_us), strict=True):
        assert end % SECOND == 0
        assert times[row - 1] < end <= times[row]
        assert times[row - 1] // SECOND < times[row] // SECOND
    assert splits.train_rows <= len(times) * shares[0]


def test_splits_are_where_the_shares_say_if_no_second_is_shared() -> None:
    splits = split_by_time(np.arange(100) * SECOND, alternating(100), 0.8, 0.1)
    assert dict(splits.rows) == {"train": 80, "valid": 10, "test": 10}
    assert moment(splits.train_end_us).isoformat() == "1970-01-01T00:01:20+00:00"


@pytest.mark.parametrize(
    ("times", "labels", "shares", "fault"),
    [
        (np.array([], int), np.array([], int), (0.8, 0.1), "no event before the cutoff"),
        (np.zeros(100, int), alternating(100), (0.8, 0.1), "both classes in train, received 0 rows"),
        (np.arange(100) * SECOND, np.ones(100, int), (0.8, 0.1), "received 80 rows, 80 of them positive"),
        (np.arange(100) * SECOND, np.arange(100) // 90, (0.8, 0.1), "in train, received 80 rows, 0 of them"),
        (np.arange(5) * SECOND, alternating(5), (0.8, 0.1), "in valid"),
        (np.arange(100) * SECOND, alternating(100), (0.9, 0.1), "KESTREL_TRAIN_FRACTION"),
    ],
)
def test_what_cannot_be_learned_or_measured_is_refused(
    times: np.ndarray, labels: np.ndarray, shares: tuple[float, float], fault: str
) -> None:
    with pytest.raises(TrainingDataError, match=fault):
        split_by_time(times, labels, *shares)


@given(batches=st.lists(st.integers(0, 9), max_size=12), lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_cut_keeps_every_row_in_order(batches: list[int], lengths: list[int]) -> None:
    numbers = iter(range(sum(batches)))
    stream = [pa.record_batch({"x": pa.array([next(numbers) for _ in range(size)], pa.int64())}) for size in batches]
    pieces: dict[int, list[int]] = {}
    for number, batch in cut(stream, lengths):
        pieces.setdefault(number, []).extend(batch["x"].to_pylist())
    rows = list(range(sum(batches)))
    for number, length in enumerate(lengths):
        assert pieces.get(number, []) == rows[sum(lengths[:number]) :][:length]
    assert pieces.get(len(lengths), []) == rows[sum(lengths) :]


FOUND = Column("found", Dtype.INT64, "", missing=0)
SINCE = Column("since", Dtype.TIMESTAMP, "", nullable=True)


def numbered(first: int, rows: int) -> pa.RecordBatch:
    return pa.record_batch({"example_id": pa.array(range(first, first + rows), pa.int64())})


@given(stored=st.integers(0, 40), first=st.integers(0, 40), sizes=st.lists(st.integers(0, 9), max_size=8))
def test_what_passes_a_join_by_comes_back_to_its_own_row(
    tmp_path_factory: pytest.TempPathFactory, stored: int, first: int, sizes: list[int]
) -> None:
    path = tmp_path_factory.mktemp("labels") / "labels.parquet"
    found = [row if row % 3 else None for row in range(stored)]
    table = pa.table(numbered(0, stored)).append_column("found", pa.array(found, pa.int64()))
    since = pa.array([row if row % 3 else None for row in range(stored)], pa.timestamp("us", tz="UTC"))
    pq.write_table(table.append_column("since", since), path, row_group_size=7)
    batches = [numbered(first + sum(sizes[:n]), size) for n, size in enumerate(sizes)]
    if first + sum(sizes) > stored and sum(sizes):
        with pytest.raises(RowCountError, match="expected the label rows of"):
            list(beside(batches, path, [FOUND, SINCE], first))
        return
    rows = [row for batch in beside(batches, path, [FOUND, SINCE], first) for row in batch.to_pylist()]
    assert [row["example_id"] for row in rows] == list(range(first, first + sum(sizes)))
    for row in rows:
        number = row["example_id"]
        assert row["found"] == (number if number % 3 else 0)
        assert row["since"] == (moment(number) if number % 3 else None)


def test_rows_in_another_order_than_the_labels_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table(numbered(0, 5)).append_column("found", pa.array(range(5), pa.int64())), tmp_path / "labels")
    with pytest.raises(RowCountError):
        list(beside([numbered(0, 2), numbered(3, 1)], tmp_path / "labels", [FOUND]))


def test_how_rows_of_lists_are_left_out_is_in_their_id_and_what_other_kinds_are_cut_by_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def inputs(**changes: float) -> dict[str, object]:
        return settings_inputs(
            Settings(**changes),
            MOVIELENS,
            TrainingKind.LISTS,
            declared(MOVIELENS).ranking_windows,  # type: ignore[arg-type]  # numbers
        )

    plain, fewer = inputs(list_rows=0), inputs(list_rows=3)
    assert plain != fewer != inputs(list_rows=4)
    assert plain == inputs(list_rows=0, negatives=9, samples_per_user=3, train_fraction=0.5, label_min_value=3.0)
    assert plain != inputs(list_rows=0, refresh_hours=6)
    assert "pair_ease_rank" in plain["encodings"]  # type: ignore[operator]  # a dictionary
    monkeypatch.setattr(identity, "CHOOSING", "another")
    assert fewer != inputs(list_rows=3)
    assert plain == inputs(list_rows=0)


def test_how_rows_are_drawn_and_left_out_is_in_the_id_of_sets_that_do_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def inputs(schema: Schema, samples: int, kind: TrainingKind = TrainingKind.RANKING) -> dict[str, object]:
        return settings_inputs(Settings(samples_per_user=samples), schema, kind, declared(schema).ranking)

    implicit, retrieval = replace(MOVIELENS, is_implicit=True), TrainingKind.RETRIEVAL
    cases = [(MOVIELENS, 0), (MOVIELENS, 3), (implicit, 0), (implicit, 3), (implicit, 0, retrieval)]
    before = [inputs(*case) for case in cases]  # type: ignore[arg-type]  # of what each case holds
    monkeypatch.setattr(identity, "DRAWING", "another")
    monkeypatch.setattr(identity, "SAMPLING", "another")
    after = [inputs(*case) for case in cases]  # type: ignore[arg-type]  # as above
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False, False, True]


def test_a_file_s_checksum_depends_on_its_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ROW_GROUP", 10)
    table = pa.table({"x": pa.array(range(37), pa.int64()), "words": [["a"] * (row % 3) for row in range(37)]})
    sums = set()
    for size in (1, 7, 10, 37):
        with RowGroupWriter(tmp_path / str(size), table.schema) as writer:
            for batch in table.to_batches(max_chunksize=size):
                writer.write(batch)
        assert writer.rows == 37
        assert pq.ParquetFile(tmp_path / str(size)).metadata.num_row_groups == 4
        assert stored_sha256(tmp_path / str(size)) == writer.sha256
        sums.add(writer.sha256)
    assert len(sums) == 1
    with RowGroupWriter(tmp_path / "other", table.schema) as writer:
        writer.write(table.set_column(0, "x", pa.array([1, *range(1, 37)], pa.int64())).to_batches()[0])
    assert writer.sha256 not in sums


TERMS = Column("terms", Dtype.STRING, "", length=2, missing="", encoding=Encoding.VOCABULARY, vocabulary="word")
MEAN = Column("mean", Dtype.FLOAT32, "", missing=-1.0, encoding=Encoding.STANDARD)


def test_gaps_are_filled_as_declared() -> None:
    assert fill_missing(pa.array([1.0, None], pa.float32()), MEAN).to_pylist() == [1.0, -1.0]
    assert fill_missing(pa.array([["a", "b"], None]), TERMS).to_pylist() == [["a", "b"], ["", ""]]
    with pytest.raises(ValueError, match="expected a value in every row, received 1 nulls"):
        fill_missing(pa.array([None], pa.float32()), Column("value", Dtype.FLOAT32, ""))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://127.0.0.1:6390/0", "127.0.0.1:6390"),
        ("redis://:0123@redis/2", 'redis:6379,db=2,password="0123"'),
        ("rediss://me:a%22b@redis:1", 'redis:1,username="me",password="a\\"b",ssl=true'),
    ],
)
def test_a_redis_url_becomes_feast_s_connection_string(url: str, expected: str) -> None:
    from feast.infra.online_stores.redis import RedisOnlineStore

    assert connection_string(url) == f"{expected},socket_connect_timeout=5,socket_timeout=60"
    _, parameters = RedisOnlineStore._parse_connection_string(connection_string(url))
    assert parameters.get("password") == {"0": None, "2": "0123", "1": 'a"b'}[url[-1]]


@pytest.mark.parametrize("url", ["http://:secret@redis", "redis://", "redis://:se%2Ccret@redis", "redis://redis/x"])
def test_a_redis_url_that_feast_cannot_say_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(JobError, match="KESTREL_REDIS_URL") as refusal:
        connection_string(url)
    assert "secret" not in str(refusal.value)
    assert "cret@" not in redacted(url)
