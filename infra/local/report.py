"""What a demo ends with: metrics, gates, measured lists, recommendations, the lines to copy, and what it all took."""

from __future__ import annotations

import glob
import os
import shlex
import time
from typing import TYPE_CHECKING, Any

import httpx
from rich.table import Table

from feature_repo.contracts.datasets import EVENTS, USER_ID
from feature_repo.contracts.ids import is_id, path_part
from feature_repo.contracts.intervals import model_name
from feature_repo.contracts.manifests import Decision, Verdict
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.planes import run_plane
from feature_repo.contracts.publishing import read_json, write_json
from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, RANKING_MODEL, SCORE
from infra.local.errors import LocalError
from infra.local.stack import command_environment
from infra.local.tables import addresses, named_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from infra.local.airflow_api import Airflow
    from infra.local.demo import MemoryMeter
    from infra.local.settings import LocalSettings
    from infra.local.stack import Stack
    from infra.local.watching import Chain

K = 10
_USERS_AT = (0.1, 0.5, 0.9)
"""Which users are shown: a busy one, a middling one, and a quiet one, by their place in the order of activity."""
_EXAMPLE_ITEMS = 3
_RANKED_WITHIN_S = 30.0
_SPLITS = {"test": "features as of the moment", "test_as_of_refresh": "features as of the last refresh"}
_METRICS = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log loss", "ece": "ECE"}
_LIST_METRICS = {
    "ndcg_at_10": "NDCG@10",
    "recall_at_10": "Recall@10",
    "hit_rate_at_10": "hit rate",
    "coverage": "coverage",
    "novelty": "novelty",
    "diversity": "diversity",
    "overlap": "overlap",
}
"""Figures of lists. The best of a column is the highest, of the last one, which users have in common, the lowest."""
_BENCH_REQUESTS = 300
_REPORTS = {"check": "Checks", "embeddings": "Embeddings"}
"""Tasks of the refresh that write a report, and what it is of."""


def candidate_folder(namespace: Namespace, run_id: str) -> Path:
    """Return the working folder of the training run whose verdict names the MLflow run `run_id`."""
    found = [
        path.parent
        for path in sorted(namespace.candidates.glob("*/verdict.json"))
        if Verdict.read(path).run_id == run_id
    ]
    if not found:
        msg = f"{namespace.candidates}: expected a verdict of MLflow run {run_id}, found none; run make demo again"
        raise LocalError(msg)
    return found[-1]


def _figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-" if value is None else str(value)


def metrics_table(evaluation: Mapping[str, Any], split: str, title: str) -> Table:
    """Return the metrics of candidate, champion and baselines on one split."""
    table = Table(title=f"Test window, {title}: {evaluation['rows']:,} rows", title_justify="left", box=None)
    table.add_column("model", min_width=24)
    for heading in _METRICS.values():
        table.add_column(heading, justify="right")
    for name, measured in evaluation["metrics"][split].items():
        table.add_row(name, *(_figure(measured.get(metric)) for metric in _METRICS))
    return table


def losses(evaluation: Mapping[str, Any], split: str) -> str:
    """Say who has a higher AUC than the candidate on a split, or GAUC if it has no AUC; nothing if nobody has."""
    measured = evaluation["metrics"][split]
    metric = "gauc" if measured["candidate"]["auc"] is None else "auc"
    own = measured["candidate"][metric]
    better = [name for name, row in measured.items() if None not in {row[metric], own} and row[metric] > own]
    return f"The candidate loses to {', '.join(better)} here ({_METRICS[metric]}).\n" if better else ""


def lists_table(lists: Mapping[str, Any]) -> Table:
    """Return the figures of the lists that users would be shown, the best of each column in bold.

    Args:
        lists: The evaluation's record of them, with a table or more; the first is what verdicts are about.
    """
    first, origin = lists["tables"][0], lists["origin"]
    asked = f"{first['users']:,} users with {first['history']} events asked {origin['origin'][:10]}"
    title = f"Lists: {asked}, {first['answers']:,} answers until {origin['end'][:10]}"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("list", min_width=24)
    for heading in _LIST_METRICS.values():
        table.add_column(heading, justify="right")
    best = {metric: _best(metric, [row.get(metric) for row in first["rows"]]) for metric in _LIST_METRICS}
    for row in first["rows"]:
        table.add_row(row["list"], *(_list_figure(row.get(metric), best[metric]) for metric in _LIST_METRICS))
    return table


def print_lists(lists: Mapping[str, Any], console: Console) -> None:
    """Print the figures of the lists, if they were measured, and what they come to."""
    if lists["tables"]:
        console.print(lists_table(lists))
    console.print(f"{lists['sentence']}\n", markup=False)


def lists_page(settings: LocalSettings, run_id: str) -> str:
    """Return the address of the page of a run's lists in MLflow; LocalError if it does not know the run."""
    base = settings.mlflow_uri.rstrip("/")
    response = httpx.get(f"{base}/api/2.0/mlflow/runs/get", params={"run_id": run_id}, timeout=10, trust_env=False)
    if response.is_error:
        what = f"GET {response.url}: HTTP {response.status_code}"
        msg = f"MLflow: expected the run {run_id}, received {what}; see make logs PART=mlflow"
        raise LocalError(msg)
    experiment = response.json()["run"]["info"]["experiment_id"]
    return f"{base}/#/experiments/{experiment}/runs/{run_id}/artifacts/lists/report.html"


def _best(metric: str, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return (min if metric == "overlap" else max)(known, default=None)


def _list_figure(value: float | None, best: float | None) -> str:
    if value is None:
        return "-"
    return f"[bold]{value:.3f}[/]" if value == best else f"{value:.3f}"


def gates_table(verdict: Verdict) -> Table:
    """Return each gate with its figure, its threshold and its verdict."""
    table = Table(title="Gates", title_justify="left", box=None)
    table.add_column("gate", min_width=24)
    table.add_column("figure", justify="right")
    table.add_column("threshold", justify="right")
    table.add_column("verdict")
    colours = {"pass": "green", "fail": "red", "undecided": "yellow", "warning": "yellow"}
    for gate in verdict.gates:
        word = str(gate["verdict"])
        shown = f"[{colours[word]}]{word}[/]" if word in colours else word
        table.add_row(str(gate["name"]), _figure(gate["figure"]), _figure(gate["threshold"]), shown)
    return table


def ending(verdict: Verdict, serving: Mapping[str, Any]) -> str:
    """Say in one paragraph what came of the candidate and what is served now."""
    served = f"version {serving['version']} serves" if serving.get("version") else "nothing is served yet"
    normal = " A rejection is a normal ending." if verdict.decision is Decision.REJECT else ""
    since = serving.get("since") or "never"
    return f"Version {verdict.version}: {verdict.reason}{normal} Now {served} ({serving.get('model')}, since {since})."


def some_users(namespace: Namespace) -> list[str]:
    """Return three users of the data set: a busy, a middling and a quiet one; only such as can be asked for."""
    import duckdb  # noqa: PLC0415 - here only

    files = f"{glob.escape(str(namespace.dataset(EVENTS.name)))}/*/*.parquet"
    rows = "read_parquet(?, hive_partitioning = false)"
    query = f"SELECT {USER_ID.name} FROM {rows} GROUP BY 1 ORDER BY count(*) DESC, 1"  # noqa: S608 - a constant
    with duckdb.connect() as connection:
        users = [user for (user,) in connection.execute(query, [files]).fetchall() if is_id(user)]
    return [users[int(share * (len(users) - 1))] for share in _USERS_AT] if users else []


def recommendations(settings: LocalSettings, user: str, *, wait_ranked: bool) -> dict[str, Any]:
    """Ask the recommender; `wait_ranked` gives it a moment to take a promotion over."""
    url = f"{settings.recommender_uri.rstrip('/')}/recommend/{path_part(user)}"
    deadline = time.monotonic() + _RANKED_WITHIN_S
    while True:
        try:
            response = httpx.get(url, params={"k": K}, timeout=10, trust_env=False)
            response.raise_for_status()
        except httpx.HTTPError as error:
            msg = f"the recommender does not answer {url}: {error}; see make logs PART=recommender"
            raise LocalError(msg) from error
        answer: dict[str, Any] = response.json()
        if not wait_ranked or answer.get("model") or time.monotonic() > deadline:
            return answer
        time.sleep(0.5)


def slate_table(answer: Mapping[str, Any]) -> Table:
    """Return one user's recommendations with their reasons."""
    missing = f" (degraded: {', '.join(answer['degraded'])})" if answer["degraded"] else ""
    table = Table(title=f"For user {answer['user']}{missing}", title_justify="left", box=None, expand=True)
    table.add_column("#", justify="right")
    table.add_column("title", ratio=3)
    table.add_column("score", justify="right")
    table.add_column("because", ratio=3)
    for position, item in enumerate(answer["items"], 1):
        year = f" ({item['attributes']['release_year']})" if item["attributes"].get("release_year") else ""
        table.add_row(str(position), f"{item['title']}{year}", _figure(item["score"]), item["reason"])
    return table


def example_request(golden: Mapping[str, Any]) -> dict[str, Any]:
    """Return a small request for one user and a few items, cut out of a golden one: the user's inputs have one row."""
    request = next(request for request in golden["requests"] if request["signature_name"] == ONE_USER_SIGNATURE)
    inputs = {name: values[:_EXAMPLE_ITEMS] for name, values in request["inputs"].items()}
    return {"signature_name": request["signature_name"], "inputs": inputs}


def copyable_lines(settings: LocalSettings, namespace: str, user: str, request: Path | None) -> list[str]:
    """Return command lines that work as they stand, from the repository's folder."""
    recommender = settings.recommender_uri.rstrip("/")
    curl = "curl -s -w '\\n'"  # no answer ends its line
    lines = [f"{curl} '{recommender}/recommend/{path_part(user)}?k={K}'"]
    if request is None:
        return lines
    model = model_name(namespace, RANKING_MODEL)
    rest = settings.model_server_rest.rstrip("/")
    path = shlex.quote(str(request))
    return [
        *lines,
        f"{curl} {rest}/v1/models/{model}",
        f"{curl} {rest}/v1/models/{model}:predict -d @{path}",
        f".venv/bin/python -m infra.local.grpc_example {settings.model_server_grpc} {model} {path}",
    ]


def _try_predictions(settings: LocalSettings, namespace: str, request: Path) -> str:
    """Send the example both ways, as the printed lines do; LocalError when an answer is missing or they differ."""
    from infra.local.grpc_example import score  # noqa: PLC0415 - imports gRPC

    model = model_name(namespace, RANKING_MODEL)
    body = read_json(request)
    url = f"{settings.model_server_rest.rstrip('/')}/v1/models/{model}:predict"
    response = httpx.post(url, json=body, timeout=30, trust_env=False)
    if response.is_error:
        msg = f"the model server refused the example: POST {url}: HTTP {response.status_code}: {response.text[:300]}"
        raise LocalError(msg)
    outputs = response.json()["outputs"]
    rest = outputs[SCORE.name] if isinstance(outputs, dict) else outputs
    grpc = score(settings.model_server_grpc, model, body)
    shown = ", ".join(f"{value:.4f}" for value in grpc)
    difference = max(abs(one - other) for one, other in zip(rest, grpc, strict=True))
    return f"Both predictions were just made: {shown} (REST and gRPC differ by {difference:.1e} at most)"


def report_addresses(airflow: Airflow, chain: Chain) -> str:
    """Return where the refresh's reports are: the addresses behind the buttons of its tasks."""
    run = chain.runs["feature_refresh"]
    links = {what: airflow.links(run, task).get("Report") for task, what in _REPORTS.items()}
    return named_lines({what: link for what, link in links.items() if link})


def measured_lines(seconds: float, peak: int, bench: Mapping[str, Any] | None) -> list[str]:
    """Return what the run took, and a request for recommendations if some were made."""
    lines = [
        f"this run             {int(seconds) // 60} min {int(seconds) % 60} s",
        f"peak memory          {peak / 1024**3:.2f} GB (stack, jobs and this command; PSS, looked at every 2 s)",
    ]
    if bench is None:
        return lines
    latency = f"p50 {bench['p50_ms']} ms, p99 {bench['p99_ms']} ms over {bench['requests']} requests"
    return [*lines, f"/recommend?k={bench['k']}      {latency}, {bench['ranked']} of them ranked by the model"]


def _print_recommendations(
    settings: LocalSettings, place: Namespace, request: Path | None, console: Console, *, wait_ranked: bool
) -> None:
    """Print what some users get, and the command lines that ask for it."""
    users = some_users(place)
    for user in users:
        console.print()
        console.print(slate_table(recommendations(settings, user, wait_ranked=wait_ranked)))
    console.print("\n[bold]Copy and run[/]")
    for line in copyable_lines(settings, place.name, users[0] if users else "1", request):
        console.out(f"  {line}", highlight=False)
    if request is not None:
        console.print(_try_predictions(settings, place.name, request))


def print_report(
    airflow: Airflow,
    stack: Stack,
    chain: Chain,
    console: Console,
    *,
    namespace: str,
    is_served: bool,
    meter: MemoryMeter,
    began: float,
) -> None:
    """Print what came of the runs; a rejection and a tie are ordinary endings.

    Recommendations are shown if the recommender answers for the namespace.
    """
    settings = stack.settings
    place = Namespace(stack.places.state, namespace)
    environment = {**command_environment(stack.places.state, os.environ, toolchain_only=False)}
    environment["KESTREL_NAMESPACE"] = namespace
    serving = run_plane(["serving.rollout", "status", "--namespace", namespace], environment)
    console.print()
    request = None
    if chain.note:
        console.print(chain.note)
    else:
        gate = airflow.result(chain.runs["model_training"], "gate")
        folder = candidate_folder(place, str(gate["run_id"]))
        verdict = Verdict.read(folder / "verdict.json")
        evaluation: dict[str, Any] = read_json(folder / "evaluation.json")
        print_lists(evaluation["lists"], console)
        for split, title in _SPLITS.items():
            console.print(metrics_table(evaluation, split, title), losses(evaluation, split))
        console.print(gates_table(verdict), "")
        console.out(f"All figures, and what three users then liked: {lists_page(settings, str(gate['run_id']))}\n")
        console.print(ending(verdict, serving))
        if serving.get("version"):
            request = stack.places.state / "examples" / f"{namespace}.json"
            write_json(request, example_request(read_json(folder / "golden.json")))
    if is_served:
        _print_recommendations(settings, place, request, console, wait_ranked=bool(serving.get("version")))
    meter.sample()
    bench_command = ["serving.recommender", "bench", "--requests", str(_BENCH_REQUESTS)]
    bench = run_plane(bench_command, environment) if is_served else None
    console.print("\n[bold]Where it runs[/]")
    console.out(addresses(stack), highlight=False)
    console.print("\n[bold]Reports[/] (with Airflow's login)")
    console.out(report_addresses(airflow, chain), highlight=False)
    console.print("\n[bold]Measured[/]")
    for line in measured_lines(time.monotonic() - began, meter.peak, bench):
        console.out(f"  {line}", highlight=False)
    console.out("The stack stays up: make status, make logs, make down.", highlight=False)
