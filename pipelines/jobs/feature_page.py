"""Job: the contracts' features → a page for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.publishing import replacing
from pipelines.feature_page.page import render
from pipelines.io.spark import spark_session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipelines.settings import Settings


def run(settings: Settings, out: Path) -> Mapping[str, object]:
    """Write the page to `out`, whole or not at all."""
    with spark_session(settings, "feature page", rows=0) as spark:
        page = render(spark)
    with replacing(out) as part:
        part.write_text(page, encoding="utf-8")
    return {"page": str(out), "features": page.count("\n| `")}
