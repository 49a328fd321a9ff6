"""From a template and what it shows to a published page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from feature_repo.contracts.places import REPORT
from feature_repo.contracts.publishing import publishing_directory, write_json
from pipelines.jobs.leftovers import remove_leftovers

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEMPLATES = Path(__file__).parent / "templates"
RECORD = "report.json"
"""What the page shows, for machines; the page is made from it."""


def render(template: str, report: Mapping[str, object], plots: Mapping[str, object]) -> str:
    """Return the HTML of `report`; `plots` hold SVG text, which alone is not escaped."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(report=report, plots=plots)


def publish(folder: Path, name: str, html: str, report: Mapping[str, object]) -> None:
    """Write a page and its record under a name that says their content; nothing happens if it is there."""
    remove_leftovers(folder)
    with publishing_directory(folder / name) as part:
        (part / REPORT).write_text(html, encoding="utf-8")
        write_json(part / RECORD, report)
