"""Airflow's REST API, as far as a demo needs it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx

from feature_repo.contracts.ids import path_part
from infra.local.errors import LocalError, ServerFaultError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infra.local.settings import LocalSettings

ENDED = frozenset({"success", "failed"})
_TIMEOUT_S = 30.0
_TRIES = 5
_FAULT_PAUSE_S = 0.5
"""SQLite lets one process write at a time; a read that came in between succeeds a moment later."""


@dataclass(frozen=True, slots=True)
class DagRun:
    """A run of a DAG."""

    dag: str
    run_id: str
    state: str
    partition_key: str
    start: datetime | None
    end: datetime | None
    conf: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A task in a run, or one of those that it was mapped to. `state` is 'none' until the scheduler looked at it."""

    task: str
    state: str
    attempt: int
    start: datetime | None
    end: datetime | None
    map_index: int = -1
    """Its place among the mapped ones; -1 of a task that is not mapped."""
    element: str = ""
    """What the mapped one stands for, such as a spec's name."""

    @property
    def key(self) -> tuple[str, int]:
        """Tells it apart from every other one of its run."""
        return self.task, self.map_index

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.task} {self.element}".rstrip()


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _dag_run(record: Mapping[str, Any]) -> DagRun:
    return DagRun(
        dag=record["dag_id"],
        run_id=record["dag_run_id"],
        state=record["state"],
        partition_key=record.get("partition_key") or "",
        start=_moment(record.get("start_date")),
        end=_moment(record.get("end_date")),
        conf=record.get("conf") or {},
    )


def _run_path(dag: str, run_id: str) -> str:
    """Return the path of a run, whose id may be any text of whoever triggered it."""
    return f"/api/v2/dags/{dag}/dagRuns/{path_part(run_id)}"


class Airflow:
    """One Airflow, logged in at the first call."""

    def __init__(self, settings: LocalSettings) -> None:
        self._credentials = {"username": settings.airflow_user, "password": settings.airflow_password}
        self._client = httpx.Client(base_url=settings.airflow_uri.rstrip("/"), timeout=_TIMEOUT_S, trust_env=False)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _log_in(self) -> None:
        response = self._client.post("/auth/token", json=self._credentials)
        if response.status_code not in {HTTPStatus.OK, HTTPStatus.CREATED}:
            msg = (
                f"Airflow at {self._client.base_url} refuses the login of user {self._credentials['username']} "
                f"(HTTP {response.status_code}): expected KESTREL_AIRFLOW_USER and KESTREL_AIRFLOW_PASSWORD to fit; "
                f"run make up to apply changed settings"
            )
            raise LocalError(msg)
        self._client.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - httpx's own
        """Call the API; an api-server that is just being restarted gets a few seconds."""
        for attempt in range(_TRIES):
            try:
                if "Authorization" not in self._client.headers:
                    self._log_in()
                response = self._client.request(method, path, **arguments)
            except httpx.TransportError as error:
                if attempt == _TRIES - 1:
                    msg = f"Airflow at {self._client.base_url} does not answer ({error}); see make status and make logs"
                    raise LocalError(msg) from error
                time.sleep(1 + attempt)
                continue
            if response.status_code == HTTPStatus.UNAUTHORIZED and attempt == 0:
                del self._client.headers["Authorization"]
                continue
            if response.is_server_error and method == "GET" and attempt < _TRIES - 1:
                time.sleep(_FAULT_PAUSE_S)
                continue
            break
        if response.is_error:
            msg = f"Airflow: {method} {path}: HTTP {response.status_code}: {response.text[:500]}; see make logs"
            raise (ServerFaultError if response.is_server_error else LocalError)(msg)
        body: dict[str, Any] = response.json() if response.content else {}
        return body

    def wait_for_dags(self, dags: Sequence[str], timeout_s: float) -> None:
        """Wait until the DAG files have been read, and switch their DAGs on."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self._call("GET", "/api/v2/dags", params={"limit": 100, "exclude_stale": True})["dags"]
            paused = {record["dag_id"]: record["is_paused"] for record in found}
            missing = [dag for dag in dags if dag not in paused]
            if not missing:
                break
            if time.monotonic() > deadline:
                errors = self._call("GET", "/api/v2/importErrors")["import_errors"]
                traces = "\n".join(f"{error['filename']}:\n{error['stack_trace']}" for error in errors)
                unknown = ", ".join(missing)
                msg = f"Airflow does not know the DAGs {unknown} after {timeout_s:g} s. {traces or 'See make logs'}"
                raise LocalError(msg)
            time.sleep(1)
        for dag in dags:
            if paused[dag]:
                self._call("PATCH", f"/api/v2/dags/{dag}", json={"is_paused": False})

    def trigger(self, dag: str, conf: Mapping[str, Any]) -> DagRun:
        """Start a run by hand: without a logical date, so without a data interval."""
        body = {"logical_date": None, "conf": dict(conf)}
        return _dag_run(self._call("POST", f"/api/v2/dags/{dag}/dagRuns", json=body))

    def run(self, dag: str, run_id: str) -> DagRun:
        """Return a run as it is now."""
        return _dag_run(self._call("GET", _run_path(dag, run_id)))

    def run_caused_by(self, dag: str, cause: DagRun) -> DagRun | None:
        """Return the latest run of `dag` that an asset event of the run `cause` has started, if there is one yet.

        Airflow 3.3 answers HTTP 500 about the events of a run that waits for its start (`created_dagruns.start_date`
        may not be null in its answer): such a run is not found until it starts.
        """
        listed = self._call("GET", f"/api/v2/dags/{dag}/dagRuns", params={"order_by": "-id", "limit": 20})
        for record in listed["dag_runs"]:
            if record["start_date"] is None:
                continue
            path = f"{_run_path(dag, record['dag_run_id'])}/upstreamAssetEvents"
            try:
                events = self._call("GET", path)["asset_events"]
            except ServerFaultError:
                continue
            if any((event["source_dag_id"], event["source_run_id"]) == (cause.dag, cause.run_id) for event in events):
                return _dag_run(record)
        return None

    def tasks(self, run: DagRun) -> list[TaskRun]:
        """Return the tasks of a run as they are now, in the order of the DAG's own start."""
        path = f"{_run_path(run.dag, run.run_id)}/taskInstances"
        records = self._call("GET", path, params={"limit": 100})["task_instances"]
        return [
            TaskRun(
                task=record["task_id"],
                state=record["state"] or "none",
                attempt=record["try_number"],
                start=_moment(record["start_date"]),
                end=_moment(record["end_date"]),
                map_index=record["map_index"],
                element=record.get("rendered_map_index") or "",
            )
            for record in records
        ]

    def log(self, run: DagRun, task: TaskRun) -> list[str]:
        """Return the log of a task's last attempt, one event per line."""
        path = f"{_run_path(run.dag, run.run_id)}/taskInstances/{task.task}/logs/{max(task.attempt, 1)}"
        chosen = {"full_content": True, "map_index": task.map_index}
        body = self._call("GET", path, params=chosen, headers={"Accept": "application/json"})
        return [entry if isinstance(entry, str) else str(entry.get("event", "")) for entry in body["content"]]

    def result(self, run: DagRun, task: str) -> dict[str, Any]:
        """Return the result of a task that succeeded."""
        path = f"{_run_path(run.dag, run.run_id)}/taskInstances/{task}/xcomEntries/return_value"
        value: dict[str, Any] = self._call("GET", path, params={"deserialize": False})["value"]
        return value

    def links(self, run: DagRun, task: str) -> dict[str, str | None]:
        """Return the addresses behind a task's buttons, by their names."""
        path = f"{_run_path(run.dag, run.run_id)}/taskInstances/{task}/links"
        found: dict[str, str | None] = self._call("GET", path)["extra_links"]
        return found

    def clear_failed(self, run: DagRun) -> None:
        """Let a failed run go on with the tasks that have not succeeded."""
        body = {"dry_run": False, "dag_run_id": run.run_id, "only_failed": True, "reset_dag_runs": True}
        self._call("POST", f"/api/v2/dags/{run.dag}/clearTaskInstances", json=body)
