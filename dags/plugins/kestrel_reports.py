"""Airflow's web server shows the pipeline's reports, to whoever may see the task that wrote them.

A browser opens no file from a web page, so the pages go through the server that links to them: the same address, the
same login, the same permission as the task instance. A report holds what a source had in its rows; it is escaped where
it is written, and sent with a policy under which it could do nothing if it were not.

Every process of Airflow loads this file, the one of each task among them: what only the web server needs is imported
when the first page is asked for.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from airflow.plugins_manager import AirflowPlugin

from feature_repo.contracts.intervals import check_namespace
from feature_repo.contracts.places import REPORT, Namespace, state_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastapi import FastAPI
    from fastapi.responses import FileResponse
    from starlette.types import Receive, Scope, Send

PREFIX = "/reports"
WRITERS = dict.fromkeys(("checks", "embeddings", "refusals"), "feature_refresh")
"""Kind of report → the DAG whose task writes it."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; sandbox"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, max-age=3600",
}
_NAME = re.compile(r"[0-9A-Za-z]+-[0-9a-f]+")


def find_report(namespace: str, kind: str, name: str) -> Path | None:
    """Return the file of a report; None where the names are none, or nothing lies there."""
    try:
        check_namespace(namespace)
    except ValueError:
        return None
    if kind not in WRITERS or not _NAME.fullmatch(name):
        return None
    file = Namespace(state_folder(), namespace).reports / kind / name / REPORT
    return file if file.is_file() else None


def reports_app() -> FastAPI:
    """Return the application that answers below `PREFIX`."""
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity  # noqa: PLC0415 - see above
    from airflow.api_fastapi.core_api.security import requires_access_dag  # noqa: PLC0415 - as above
    from fastapi import Depends, FastAPI  # noqa: PLC0415 - as above

    app = FastAPI(title="Kestrel's reports", docs_url=None, redoc_url=None, openapi_url=None)
    for kind, dag_id in WRITERS.items():
        may_see = Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE, param_dag_id=dag_id))
        path = f"/{{namespace}}/{kind}/{{name}}"
        app.add_api_route(path, _showing(kind), methods=["GET", "HEAD"], dependencies=[may_see], response_model=None)
    return app


def _showing(kind: str) -> Callable[[str, str], FileResponse]:
    from fastapi import HTTPException, status  # noqa: PLC0415 - as above
    from fastapi.responses import FileResponse  # noqa: PLC0415 - as above

    def show(namespace: str, name: str) -> FileResponse:
        """Send a report; 404 where there is none of that name."""
        file = find_report(namespace, kind, name)
        if file is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, f"no report {kind}/{name} in namespace {namespace}")
        return FileResponse(file, media_type="text/html; charset=utf-8", headers=HEADERS)

    return show


class Reports:
    """The application, made at the first request."""

    @cached_property
    def app(self) -> FastAPI:
        """The application itself."""
        return reports_app()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self.app(scope, receive, send)


class KestrelReports(AirflowPlugin):
    """What Airflow loads."""

    name = "kestrel_reports"
    fastapi_apps = [{"app": Reports(), "url_prefix": PREFIX, "name": "Kestrel's reports"}]  # noqa: RUF012 - Airflow's own
