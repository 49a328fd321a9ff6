"""What the benchmark of lists keeps: a file for each cell of origin and seed, and figures of all cells together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.publishing import read_json
from feature_repo.contracts.questions import LONG_HISTORY, Asked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

DATA_FILE = "data.json"
LEARNERS = "-learners.json"
"""End of the name of a cell's file with what other learners make of its rows."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One data set with its cells."""

    data: Mapping[str, Any]
    cells: Sequence[Mapping[str, Any]]
    """Records of `serving.lists`, in order of origin and seed."""
    figures: pa.Table
    """One row for each cell, moment, list and user."""
    learners: Sequence[Mapping[str, float]] = ()
    """Learner → NDCG@10 among the candidates, for each origin that a model could learn lists before."""

    @property
    def name(self) -> str:
        """The data set's name."""
        return str(self.data["namespace"])

    @property
    def best_simple(self) -> str:
        """The simple list that did best on validation, which every cell of a data set has in common."""
        return str(self.cells[-1]["best_simple"])

    @property
    def lists(self) -> list[str]:
        """The names of the lists that every cell has, in their order."""
        order = dict.fromkeys(self.figures.column("list").to_pylist())
        of_cells = self.figures.group_by(["list", "cell"]).aggregate([]).column("list").to_pylist()
        return [name for name in order if of_cells.count(name) == len(self.cells)]

    @property
    def channels(self) -> list[str]:
        """The names of the channels."""
        told = [cell["recall"] for cell in self.cells if cell["recall"]]
        return list(dict.fromkeys(channel["channel"] for each in told for channel in each["channels"]))

    def values(self, asked: Asked, name: str, metric: str, least: int, most: float) -> tuple[NDArray[Any], ...]:
        """Return users, as numbers, and figures of everybody with `least` to `most` events, all cells together."""
        table = self.figures
        history = table.column("history").to_numpy()
        chosen = (
            (table.column("asked").to_numpy() == asked.value)
            & (table.column("list").to_numpy() == name)
            & (history >= least)
            & (history <= most)
        )
        users = table.column("user_id").to_numpy()[chosen]
        return np.unique(users.astype(np.str_), return_inverse=True)[1], table.column(metric).to_numpy()[chosen]

    def mean(self, name: str, metric: str, asked: Asked = Asked.AT_ORIGIN) -> float | None:
        """Return the mean over users with a history, each in every cell; None where there is nobody."""
        _, values = self.values(asked, name, metric, LONG_HISTORY, np.inf)
        return float(values.mean()) if len(values) else None

    def spread(self, name: str, metric: str) -> float | None:
        """Return the sample standard deviation over the cells."""
        means = self._of_rows(name, metric)
        return float(np.std(means, ddof=1)) if len(means) > 1 else None

    def of_lists(self, name: str, figure: str) -> float | None:
        """Return the mean over the cells of a figure that a list has as a whole."""
        known = self._of_rows(name, figure)
        return float(np.mean(known)) if known else None

    def of_recall(self, key: str) -> float | None:
        """Return a figure of the candidates over all questions: a cell counts by the users who were asked in it."""
        return _weighted([(cell["recall"].get(key), _users(cell)) for cell in self.cells if cell["recall"]])

    def of_channel(self, name: str, key: str) -> float | None:
        """Return a figure of a channel, in the same way."""
        return _weighted(
            [
                (channel[key], _users(cell))
                for cell in self.cells
                for channel in cell["recall"].get("channels", ())
                if channel["channel"] == name
            ]
        )

    def _of_rows(self, name: str, figure: str) -> list[float]:
        """Return a figure of a list from the first table of every cell that has it."""
        rows = (row for cell in self.cells if cell["tables"] for row in cell["tables"][0]["rows"])
        return [row[figure] for row in rows if row["list"] == name and row[figure] is not None]


def _users(cell: Mapping[str, Any]) -> int:
    return int(cell["tables"][0]["users"])


def _weighted(values: Sequence[tuple[float | None, int]]) -> float | None:
    known = [(value, weight) for value, weight in values if value is not None and weight]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known) if known else None


def is_measured(record: Path, questions_id: str) -> bool:
    """Return whether a cell was measured with these questions; where nobody could be asked it has no figures."""
    if not record.exists():
        return False
    content = read_json(record)
    has_figures = record.with_suffix(".parquet").exists() or not content.get("tables")
    return content.get("questions_id") == questions_id and has_figures


def read_cells(work: Path) -> list[Measured]:
    """Return every data set of the benchmark's folder; one in which nobody could be asked has no cells."""
    found = []
    for path in sorted(work.glob(f"*/{DATA_FILE}")):
        data = read_json(path)
        files = [
            file
            for file in sorted((path.parent / "cells").glob("*.json"))
            if is_measured(file, str(data["questions_id"])) and file.with_suffix(".parquet").exists()
        ]
        tables = [
            _numbered(pq.read_table(file.with_suffix(".parquet"), partitioning=None), file.stem) for file in files
        ]
        figures = pa.concat_tables(tables) if tables else pa.table({})
        others = [file.with_name(f"{file.stem}{LEARNERS}") for file in files]
        learners = [
            {name: float(str(each)) for name, each in read_json(file).items()} for file in others if file.exists()
        ]
        found.append(Measured(data, [read_json(file) for file in files], figures, learners))
    return found


def _numbered(table: pa.Table, cell: str) -> pa.Table:
    return table.append_column("cell", pa.repeat(pa.scalar(cell), len(table)))
