"""Splits by time: where train ends and where valid ends. Rows of one second are never parted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from pipelines.training.errors import TrainingDataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_SECOND_US = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Splits:
    """train is [start, train_end), valid is [train_end, valid_end), test is the rest; microseconds since 1970."""

    train_end_us: int
    valid_end_us: int
    train_rows: int
    valid_rows: int
    test_rows: int

    @property
    def rows(self) -> Mapping[str, int]:
        """Split → its rows, which follow one another in the order of the rows' ids."""
        return {"train": self.train_rows, "valid": self.valid_rows, "test": self.test_rows}


def split_by_time(
    times_us: NDArray[np.int64],
    labels: NDArray[np.int64],
    train_fraction: float,
    valid_fraction: float,
    *,
    needs_both_classes: bool = True,
) -> Splits:
    """Return the splits of rows in time order, after checking that something can be learned and measured.

    Args:
        times_us: `[rows]`, ascending, microseconds since 1970.
        labels: `[rows]`, 0 or 1.
        train_fraction: Share of the rows before the row whose second is the first that is not in train.
        valid_fraction: Share of the rows that follows.
        needs_both_classes: Whether each split has to hold labels of both.

    Raises:
        TrainingDataError: The shares leave nothing to test on, a split is empty, or one has labels of one class only.
    """
    if train_fraction + valid_fraction >= 1:
        msg = (
            "KESTREL_TRAIN_FRACTION + KESTREL_VALID_FRACTION: expected less than 1, so that a test split is left, "
            f"received {train_fraction} + {valid_fraction}"
        )
        raise TrainingDataError(msg)
    if not len(times_us):
        msg = "training set: there is no event before the cutoff; ingest data, or choose a later cutoff"
        raise TrainingDataError(msg)
    train_end, valid_end = (
        _start_of_second(times_us, share) for share in (train_fraction, train_fraction + valid_fraction)
    )
    first_valid, first_test = (int(np.searchsorted(times_us, end)) for end in (train_end, valid_end))
    splits = Splits(train_end, valid_end, first_valid, first_test - first_valid, len(times_us) - first_test)
    _check(splits, np.split(labels, [first_valid, first_test]), needs_both_classes=needs_both_classes)
    return splits


def _start_of_second(times_us: NDArray[np.int64], share: float) -> int:
    return int(times_us[int(len(times_us) * share)]) // _SECOND_US * _SECOND_US


def _check(splits: Splits, labels: list[NDArray[np.int64]], *, needs_both_classes: bool) -> None:
    for (name, rows), values in zip(splits.rows.items(), labels, strict=True):
        positives = int(values.sum())
        if 0 < positives < rows or (rows and not needs_both_classes):
            continue
        expected = "rows of both classes" if needs_both_classes else "rows"
        msg = (
            f"training set: expected {expected} in {name}, received {rows} rows, {positives} of them "
            f"positive (all splits: {dict(splits.rows)}); bring more events, or change KESTREL_LABEL_MIN_VALUE, "
            "KESTREL_TRAIN_FRACTION or KESTREL_VALID_FRACTION"
        )
        raise TrainingDataError(msg)


def moment(microseconds: int) -> datetime:
    """Return microseconds since 1970 as a time in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)
