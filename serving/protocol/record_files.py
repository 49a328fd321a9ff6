"""TFRecord files without TensorFlow: the container of warm-up files and of recorded requests.

A record is its length (8 bytes, little endian), the masked CRC-32C of these 8 bytes, the data, and the data's own.
Source: tensorflow/core/lib/io/record_writer.h and tensorflow/core/lib/hash/crc32c.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import google_crc32c

from serving.protocol.errors import RecordFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_MASK_DELTA = 0xA282EAD8
_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Write records to `path`, in place: whoever shares the file writes it beside and renames."""
    with path.open("wb") as stream:
        for record in records:
            length = _LENGTH.pack(len(record))
            stream.write(length + _masked_crc(length) + record + _masked_crc(record))


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the records of a file.

    Raises:
        RecordFileError: A record is cut short, or its checksum is wrong; the message names its place.
    """
    with path.open("rb") as stream:
        place = 0
        while head := stream.read(_LENGTH.size + _CHECKSUM.size):
            length, checksum = head[: _LENGTH.size], head[_LENGTH.size :]
            # A wrong length could ask for more memory than there is, so its own checksum is looked at first.
            if checksum != _masked_crc(length):
                raise _broken(path, place, "a length with its checksum", head)
            (size,) = _LENGTH.unpack(length)
            record = stream.read(size)
            checksum = stream.read(_CHECKSUM.size)
            if len(record) != size or checksum != _masked_crc(record):
                raise _broken(path, place, f"{size} bytes with their checksum", record)
            yield record
            place += 1


def _masked_crc(data: bytes) -> bytes:
    """Return a CRC-32C, turned and moved so that a CRC of data that hold CRCs is still a good one."""
    crc = google_crc32c.value(data)
    return _CHECKSUM.pack((((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF)


def _broken(path: Path, place: int, expected: str, received: bytes) -> RecordFileError:
    return RecordFileError(
        f"{path}: record {place}: expected {expected}, received {len(received)} bytes that are not; remove the file"
    )
