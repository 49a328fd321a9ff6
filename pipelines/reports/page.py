"""From a template and what it shows to a published page."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from feature_repo.contracts.places import REPORT, cutoff_name
from feature_repo.contracts.publishing import publishing_directory, remove_abandoned, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa

    from feature_repo.contracts.places import Namespace

_TEMPLATES = Path(__file__).parent / "templates"
_NAME_LENGTH = 8
RECORD = "report.json"
"""What the page shows, for machines; the page is made from it."""


def render(template: str, report: Mapping[str, object], plots: Mapping[str, object] | Sequence[str]) -> str:
    """Return the HTML of `report`; `plots` hold SVG text, which alone is not escaped."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(report=report, plots=plots)


def publish(  # noqa: PLR0917 - where, as what, what
    place: Namespace,
    kind: str,
    cutoff: datetime,
    html: str,
    report: Mapping[str, object],
    tables: Mapping[str, pa.Table] = MappingProxyType({}),
) -> str:
    """Write a page, its record and the tables that it speaks of under a name that says their content.

    Nothing happens if it is there.

    Returns:
        The page's path below the namespace's reports, `<kind>/<name>`, as Airflow's link wants it.
    """
    name = f"{cutoff_name(cutoff)}-{hashlib.sha256(html.encode()).hexdigest()[:_NAME_LENGTH]}"
    folder = place.reports / kind
    remove_abandoned(folder)
    with publishing_directory(folder / name) as part:
        (part / REPORT).write_text(html, encoding="utf-8")
        write_json(part / RECORD, report)
        for table, rows in tables.items():
            pq.write_table(rows, part / table)
    return f"{kind}/{name}"
