"""`python -m infra.bench.stream`: from POST to the user's online features, on a stack of its own.

It takes the data set that `make demo` published, copied to a state folder that is thrown away, so that no event of the
measurement ever reaches it: Redis, filled by the job that fills it every night, recommender and stream job as the stack
runs them.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from feature_repo.contracts.datasets import USER_ID
from feature_repo.contracts.ids import is_id
from feature_repo.contracts.intervals import parse_cutoff
from feature_repo.contracts.jobs import JobError
from feature_repo.contracts.manifests import OnlineSnapshot
from feature_repo.contracts.places import CURRENT, Namespace, state_folder
from feature_repo.contracts.planes import run_plane
from infra.bench.errors import BenchError
from infra.bench.freshness import Freshness, Probe
from infra.bench.results import Figure, record_results
from infra.bench.stack import private_stack
from infra.local.health import http_answers
from infra.local.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from infra.local.stack import Stack

_USERS = 1000
_LIMIT_MS = 1000.0
_SHARES = {"p50": 50, "p99": 99, "max": 100}
_VISIBLE = "to the user's features"


def measure(
    context: typer.Context,
    *,
    namespace: Annotated[str, typer.Option(envvar="KESTREL_ARG_NAMESPACE", help="Whose users and items.")] = "",
    events: Annotated[int, typer.Option(min=20, help="Events, one after another.")] = 200,
    batched: Annotated[int, typer.Option(min=1, help="Events in batches of 1000.")] = 10_000,
) -> None:
    """Print and record how long events take into the features of their users."""
    console = Console()
    state = state_folder(os.environ)
    try:
        name = namespace or read_settings(state, os.environ).namespace
        source = Namespace(state, name)
        if not source.online_current.exists():
            msg = f"namespace {name}: expected a published snapshot in {source.online}, found none; run `make demo`"
            raise BenchError(msg)
        parts = ["redis", "recommender", "stream"]
        given = {"KESTREL_NAMESPACE": name}
        with private_stack(parts, given=given, folder=None, say=lambda text: console.log(text.strip())) as stack:
            found = _measure(stack, source, events, batched)
        _print(found, console)
        record_results(context, "stream", list(_figures(found)), console)
    except JobError as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(error.exit_code) from error


def _measure(stack: Stack, source: Namespace, events: int, batched: int) -> Freshness:
    place = Namespace(stack.places.state, source.name)
    shutil.copytree(source.root, place.root, ignore=shutil.ignore_patterns(CURRENT, "feast", "locks", "landing"))
    environment = {**os.environ, **stack.environment}
    cutoff = parse_cutoff(OnlineSnapshot.read(source.online_current).cutoff)
    for job in (("registry",), ("materialize", "--cutoff", f"{cutoff:%Y-%m-%d}")):
        run_plane(["pipelines", *job, "--namespace", place.name], environment)
    shutil.copy2(source.online_current, place.online_current)
    snapshot = OnlineSnapshot.read(place.online_current)
    items = (
        pq.read_table(place.root / snapshot.catalogue.path, columns=["item_id"], partitioning=None)
        .column(0)
        .to_pylist()
    )
    users = (
        pq.read_table(place.dataset("users") / "part-0.parquet", columns=[USER_ID.name], partitioning=None)
        .column(0)
        .to_pylist()
    )
    _wait_until_ready(stack)
    items, users = list(filter(is_id, items)), list(filter(is_id, users))
    probe = Probe(stack.settings, place, items, users[:_USERS])
    try:
        return probe.measure(events, batched)
    finally:
        probe.close()


def _wait_until_ready(stack: Stack) -> None:
    """Wait until the recommender has taken up the snapshot."""
    end = time.monotonic() + stack.settings.start_timeout_s
    url = f"{stack.settings.recommender_uri}/ready"
    while (ailment := http_answers(url)) is not None:
        if time.monotonic() > end:
            raise BenchError(ailment)
        time.sleep(0.1)


def _print(found: Freshness, console: Console) -> None:
    table = Table("from POST /events", *(f"{share} ms" for share in _SHARES))
    for what, values in _spans(found).items():
        table.add_row(what, *(f"{np.percentile(values, share):.1f}" for share in _SHARES.values()))
    console.print(table)
    count = len(found.visible_ms)
    console.print(f"filtered from the next recommendation: {found.filtered} of {count}")
    console.print(f"in batches: {found.batched} events, {found.events_per_second:,.0f} a second into features")
    worst = max(found.visible_ms)
    verdict = "met" if worst <= _LIMIT_MS and found.filtered == count else "missed"
    console.print(f"target, every event within {_LIMIT_MS:.0f} ms: {verdict} ({worst:.0f} ms at worst)")


def _spans(found: Freshness) -> Mapping[str, Sequence[float]]:
    return {"to the answer: the stream has it": found.answered_ms, _VISIBLE: found.visible_ms}


def _figures(found: Freshness) -> Iterator[Figure]:
    for what, values in _spans(found).items():
        for name, share in _SHARES.items():
            target = _LIMIT_MS if what == _VISIBLE and name == "max" else None
            value = float(np.percentile(values, share))
            yield Figure(f"{name} from POST {what}", value, "ms", "lower", target, hard=target is not None)
    count = len(found.visible_ms)
    name = f"events filtered from the next recommendation, of {count}"
    yield Figure(name, found.filtered, "events", "higher", count, hard=True)
    yield Figure(f"events into features, {found.batched} in batches", found.events_per_second, "events/s", "higher")


if __name__ == "__main__":
    typer.run(measure)
