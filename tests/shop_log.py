"""A small made-up shop's log, written as CSV, JSON lines or Parquet, with the mapping that describes it."""

from __future__ import annotations

import csv
import gzip
import json
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sources.mapping_file import read_mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_repo.contracts.schemas import Schema

FIRST = datetime(2024, 3, 1, tzinfo=UTC)
CLOCK = datetime(2026, 1, 1, tzinfo=UTC)
CATEGORIES = ("home", "garden", "toys", "café & bar")

MAPPING = """\
name: Made-up shop
feedback: implicit
event_types:
  view: {meaning: Looked at it}
  purchase: {meaning: Bought it}
  return: {counted: false}
positive: {event_types: purchase}
events:
  files: "events*"
  user: customer
  item: sku
  time: at
  type: {column: action, mapping: {look: view, buy: purchase, back: return}}
  value: {column: pieces, minimum: 1, maximum: 100}
  skip:
    - {reason: no customer, when: {column: customer, missing: true}}
items:
  files: "items*"
  id: sku
  title: label
  attributes:
    - {name: price, kind: numeric, step: 0.01}
    - {name: category, kind: categorical}
    - {name: tags, kind: multi_valued, separator: "|"}
    - {name: about, kind: text}
users:
  attributes:
    - {name: country, kind: categorical, reduce: most_common}
"""
DERIVED = """\
items:
  title: {column: label, reduce: most_common}
  attributes:
    - {name: price, kind: numeric, step: 0.01, reduce: median}
    - {name: tags, kind: multi_valued, separator: "|", reduce: latest}
users:
  attributes:
    - {name: country, kind: categorical, reduce: most_common}
"""
"""In place of the mapping's end: everything is read off the event rows."""

Rows = list[dict[str, Any]]


def derived_mapping() -> str:
    """Return the mapping whose items and users are read off the event rows."""
    return MAPPING.partition("items:\n")[0] + DERIVED


@cache
def shop_schema() -> Schema:
    """Return the schema that follows from MAPPING."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.yaml"
        path.write_text(MAPPING, encoding="utf-8")
        return read_mapping(path)[1]


def shop(events: int = 300, users: int = 20, items: int = 15, days: int = 6, seed: int = 3) -> tuple[Rows, Rows]:
    """Return events and items; the same arguments give the same rows. No two events share a key."""
    rng = np.random.default_rng(seed)
    catalogue: Rows = [
        {
            "sku": f"sku {number}é",
            "label": f'Thing, "No. {number}"',
            "price": round(float(rng.integers(50, 5000)) / 100, 2),
            "category": CATEGORIES[number % 4] if number % 5 else None,
            "tags": [f"t{tag}" for tag in rng.choice(6, size=number % 4, replace=False)],
            "about": "two\nlines" if number % 3 == 0 else None,
        }
        for number in range(items)
    ]
    seconds = np.sort(rng.choice(days * 86_400, size=events, replace=False))
    log: Rows = []
    for second in seconds:
        thing = catalogue[int(rng.integers(items))]
        user = int(rng.integers(users))
        log.append(
            {
                "customer": None if rng.random() < 0.1 else f"c{user}",
                "sku": thing["sku"],
                "at": FIRST + timedelta(seconds=int(second)),
                "action": str(rng.choice(["look", "buy", "back"], p=[0.6, 0.35, 0.05])),
                "pieces": int(rng.integers(1, 9)),
                "country": ("FR", "NO", "UK")[user % 3],
                "label": thing["label"],
                "price": thing["price"] if rng.random() < 0.8 else round(thing["price"] + 1, 2),
                "tags": thing["tags"],
            }
        )
    return log, catalogue


def write_csv(path: Path, rows: Rows) -> None:
    """Write CSV with a header; a path that ends with .gz is compressed."""
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)


def write_json_lines(path: Path, rows: Rows) -> None:
    """Write an object in each line; a list is a list, nothing is null."""
    lines = (json.dumps({k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()}) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_parquet(path: Path, rows: Rows) -> None:
    """Write typed columns."""
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_shop(folder: Path, events: Rows, items: Sequence[dict[str, Any]] = (), form: str = "csv") -> Path:
    """Write a shop's files in one of the formats csv, csv.gz, jsonl, parquet; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write = {"csv": write_csv, "csv.gz": write_csv, "jsonl": write_json_lines, "parquet": write_parquet}[form]
    write(folder / f"events.{form}", events)
    if items:
        write(folder / f"items.{form}", list(items))
    return folder


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return "|".join(value) if isinstance(value, list) else "" if value is None else str(value)
