"""Whether a training fits into memory, asked before it begins: the kernel ends what does not, and tells nobody why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import TrainingSet
from feature_repo.contracts.places import MANIFEST
from models.dataset import signature_of
from models.errors import NotNowEnoughMemoryError, TooLittleMemoryError

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.memory import Memory

_BASE_BYTES = 1_000_000_000
_BYTES_OF_A_CELL = 25
_GB = 1e9


def needed_bytes(directory: Path, features: tuple[str, ...]) -> int:
    """Estimate the most memory that training on a training set takes, in bytes.

    1 GB for TensorFlow and the graph, and 25 bytes for each cell: the rows of all splits by the input values of a row,
    where a list counts by its length. Measured with `deepfm`, 50 values in a row, as the process's peak: 1.06 GB with
    57,500 rows, 1.29 GB with 230,000 and 2.40 GB with 1,150,000; from one to the next a cell took 27 and 25 bytes. Test
    rows are not read since; they stand for what else may be needed.
    Embeddings of ids are not counted: a million of them take 0.2 GB.

    Raises:
        CorruptRecordError: The manifest is none.
        DatasetError: The training set lacks features of the spec's set.
    """
    record = TrainingSet.read(directory / MANIFEST)
    columns = signature_of(record, features).input_columns
    cells = sum(record.rows.values()) * sum(column.length or 1 for column in columns)
    return _BASE_BYTES + _BYTES_OF_A_CELL * cells


def check_memory(directory: Path, features: tuple[str, ...], found: Memory | None) -> None:
    """Refuse a training that the kernel would end for want of memory, or return.

    Raises:
        TooLittleMemoryError: The machine has not enough, however empty it is.
        NotNowEnoughMemoryError: It would have, if others took less.
    """
    if found is None:
        return
    needed = needed_bytes(directory, features)
    subject = f"training on {directory.name}: expected about {needed / _GB:.1f} GB of memory"
    if needed > found.total:
        msg = (
            f"{subject}, this machine or container has {found.total / _GB:.1f} GB; give it more, or make a smaller "
            "training set (KESTREL_SAMPLES_PER_USER, KESTREL_NEGATIVES)"
        )
        raise TooLittleMemoryError(msg)
    if needed - found.resident > found.available:
        msg = f"{subject}, {found.available / _GB:.1f} GB are free; try again when less runs beside it"
        raise NotNowEnoughMemoryError(msg)
