"""The report of an ingestion that refused too many rows: the first of each reason, and all of them beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from pipelines.io.arrow import content_sha256
from pipelines.reports.page import publish, render

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import pyarrow as pa

    from feature_repo.contracts.places import Namespace
    from pipelines.errors import QuarantineLimitError

KIND = "refusals"
TABLE = "refused.parquet"
_TEMPLATE = "refusals.html.jinja"
_EXAMPLES_SHOWN = 3


def publish_refusals(place: Namespace, source: str, moment: datetime, error: QuarantineLimitError) -> str:
    """Write the report and the rows; return its path below the namespace's reports.

    Args:
        place: of the data set; nothing of its lake is touched.
        source: what a person calls it.
        moment: by which the report is filed.
        error: what was refused.
    """
    refused = error.refused.sort_by([(name, "ascending") for name in ("file", "line")])
    by_file = {each["values"]: each["counts"] for each in pc.value_counts(refused.column("file")).to_pylist()}
    report = {
        "namespace": place.name,
        "source": source,
        "limit": error.limit,
        "files": [{"file": file, "rows": rows, "refused": by_file.get(file, 0)} for file, rows in error.rows.items()],
        "refused": list(first_of_each_reason(refused)),
        "table": TABLE,
        "sha256": content_sha256(refused),
    }
    return publish(place, KIND, moment, render(_TEMPLATE, report, {}), report, {TABLE: refused})


def first_of_each_reason(rows: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the first few refused rows of every reason, the most frequent reason first."""
    counted = rows.group_by("reason").aggregate([([], "count_all")])
    reasons = counted.sort_by([("count_all", "descending"), ("reason", "ascending")]).to_pylist()
    for reason in reasons:
        of_it = rows.filter(pc.equal(rows.column("reason"), reason["reason"]))
        for number, row in enumerate(of_it.slice(0, _EXAMPLES_SHOWN).to_pylist()):
            yield {**row, "rows": reason["count_all"], "first": number == 0}
