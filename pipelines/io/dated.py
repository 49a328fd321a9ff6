"""Dated tables: Parquet files whose names say cutoff and content. They are written once and never changed.

Each lies in its folder as `<cutoff>-<sha8>.parquet`; `<cutoff>.json` beside it says that it is the one of that cutoff.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.places import cutoff_name
from feature_repo.contracts.publishing import file_sha256, remove_abandoned, replacing
from pipelines.errors import CorruptDatasetError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_HASH_LENGTH = 8


def write_dated(folder: Path, cutoff: datetime, rows: pa.Table) -> tuple[Path, str]:
    """Store `rows` by rename, unless they are there; return the file and the SHA-256 of its bytes."""
    content = pa.BufferOutputStream()
    pq.write_table(rows, content, compression="zstd")
    data = content.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    path = folder / f"{cutoff_name(cutoff)}-{sha256[:_HASH_LENGTH]}.parquet"
    remove_abandoned(folder)
    if not path.is_file() or file_sha256(path) != sha256:
        with replacing(path) as part:
            part.write_bytes(data)
    return path, sha256


def dated_record(folder: Path, cutoff: datetime) -> Path:
    """Return where it is written down which file is the one of a cutoff."""
    return folder / f"{cutoff_name(cutoff)}.json"


def check_dated(file: Path, sha256: str, remedy: str) -> None:
    """Compare a file with its checksum.

    Raises:
        CorruptDatasetError: It is missing, or has other bytes; the message ends with `remedy`.
    """
    if not file.is_file() or file_sha256(file) != sha256:
        msg = f"{file}: expected SHA-256 {sha256}, received another or no file; {remedy}"
        raise CorruptDatasetError(msg)
