"""A source of a few rows and the lake that a mapping makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.datasets import EVENTS, QUARANTINE, items_dataset
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import read_schema
from pipelines.io.lake import stored_dataset
from pipelines.jobs import ingest
from pipelines.settings import Settings
from pipelines.sources.mode import Mode
from tests.shop_log import CLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from feature_repo.contracts.datasets import Dataset

RATINGS = """\
name: Ratings
feedback: explicit
event_types: {rating: {}}
positive: {event_types: rating, min_value: 4}
events:
  files: "e*"
  user: user
  item: item
  time: {column: at, unit: s}
  type: {constant: rating}
  value: {column: stars, minimum: 1, maximum: 5}
"""
HEADER = "user,item,stars,at"
FIRST = 1_700_000_000


def rating(number: int, **other: object) -> dict[str, object]:
    """Return a row by its number: another user, item and time than any other row's."""
    row = {"user": f"u{number}", "item": f"i{number}", "stars": number % 5 + 1, "at": FIRST + 3600 * number}
    return row | other


@dataclass(frozen=True, slots=True)
class MappedWorld:
    """A folder of files, and a state."""

    root: Path
    limit: float = 1.0

    @property
    def place(self) -> Namespace:
        """The namespace that is ingested into."""
        return Namespace(self.root / "state", "test")

    @property
    def folder(self) -> Path:
        """Where the files are; it is made when it is asked for."""
        folder = self.root / "source"
        folder.mkdir(exist_ok=True)
        return folder

    def csv(self, rows: Sequence[Mapping[str, object]], name: str = "e.csv", separator: str = ",") -> None:
        """Write rows that have the same keys."""
        lines = [rows[0].keys(), *(row.values() for row in rows)]
        text = "".join(separator.join("" if cell is None else str(cell) for cell in line) + "\n" for line in lines)
        (self.folder / name).write_text(text, encoding="utf-8")

    def parquet(self, rows: Sequence[Mapping[str, object]], name: str = "e.parquet") -> None:
        """Write rows as Arrow does, with statistics that say nothing of NaN."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(rows)), path)

    def ingest(self, mapping: str = RATINGS, mode: Mode = Mode.WHOLE, source: Path | None = None) -> dict[str, Any]:
        """Ingest the folder, or a source of another place, and return the job's result."""
        path = self.root / "mapping.yaml"
        path.write_text(mapping, encoding="utf-8")
        settings = Settings(state=self.root / "state", quarantine_limit=self.limit)
        return dict(ingest.run(settings, self.place, source or self.folder, None, CLOCK, path, mode))

    def rows(self, dataset: Dataset = EVENTS) -> list[dict[str, Any]]:
        """Return what the lake holds of a dataset."""
        found: list[dict[str, Any]] = stored_dataset(self.place, dataset).snapshot().read().to_pylist()
        return found

    def items(self) -> dict[str, dict[str, Any]]:
        """Return the items by their ids."""
        return {row["item_id"]: row for row in self.rows(items_dataset(read_schema(self.place)))}

    def refused(self) -> list[tuple[int, str, str]]:
        """Return line, reason and text of what was refused, in the order of the lines."""
        return sorted((row["line"], row["reason"], row["received"]) for row in self.rows(QUARANTINE))
