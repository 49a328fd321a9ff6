"""Pages for people, from the templates that lie beside whoever writes them: one HTML file that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

if TYPE_CHECKING:
    from pathlib import Path


def page_environment(templates: Path) -> Environment:
    """Return where templates are rendered: every text is escaped, and a name that there is not is an error."""
    return Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
