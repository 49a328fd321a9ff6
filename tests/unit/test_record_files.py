"""Files of recorded requests: TensorFlow reads what is written here, and the other way round; damage is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.protocol.client import predict_request
from serving.protocol.errors import RecordFileError
from serving.protocol.record_files import read_records, write_records
from serving.protocol.recorded import log_of, read_requests

if TYPE_CHECKING:
    from pathlib import Path

RECORDS = [b"", b"one", b"\x00" * 5000, bytes(range(256))]


def test_tensorflow_reads_what_is_written_and_is_read(tmp_path: Path) -> None:
    import tensorflow as tf

    write_records(tmp_path / "ours", RECORDS)
    assert list(tf.compat.v1.io.tf_record_iterator(str(tmp_path / "ours"))) == RECORDS
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in RECORDS:
            writer.write(record)
    assert list(read_records(tmp_path / "theirs")) == RECORDS
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@given(st.data())
def test_a_file_cut_short_or_changed_is_never_taken_for_a_whole_one(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("records") / "file"
    write_records(path, RECORDS)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    else:
        path.write_bytes(whole[:place])
        if place in {0, 16, 35, 5051}:  # the end of a record is the end of a shorter file
            assert list(read_records(path)) == RECORDS[: [0, 16, 35, 5051].index(place)]
            return
    with pytest.raises(RecordFileError, match=r"record \d: expected .* remove the file"):
        list(read_records(path))


def test_requests_come_back_as_they_were_sent(tmp_path: Path) -> None:
    request = predict_request(
        "m", {"a": np.array(["x", "y"], dtype=object), "b": np.array([1.5], dtype=np.float32)}, version=3, label=None
    )
    write_records(tmp_path / "file", [log_of(request), log_of(request)])
    assert list(read_requests(tmp_path / "file")) == [request, request]


def test_records_that_are_no_logs_are_named(tmp_path: Path) -> None:
    write_records(tmp_path / "file", [b"\xff\xff\xff"])
    with pytest.raises(RecordFileError, match="record 0: expected a PredictionLog"):
        list(read_requests(tmp_path / "file"))
