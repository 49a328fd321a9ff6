"""`python -m infra.bench.serving`: the model server beside the same model in process, and under swaps.

It takes the ranker that `make demo` promoted, and measures on a stack of its own: free ports, a registry and a state
folder that are thrown away. With --grpc and --rest it measures a server that runs already, the real one for instance;
that server must see the folder given with --folder under the same path, and **what it serves is replaced**.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotation
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from feature_repo.contracts.jobs import JobError
from feature_repo.contracts.places import Serving, state_folder
from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, ROWS_SIGNATURE
from infra.bench.errors import BenchError
from infra.bench.latency import GRPC, IN_PROCESS, REST, measure_latencies
from infra.bench.load import under_load
from infra.bench.memory import measure_memory
from infra.bench.ranker import Ranker, promoted_ranker
from infra.bench.registry import register_copies
from infra.bench.results import Figure, record_results
from infra.bench.stack import private_stack
from infra.bench.swaps import run_swaps, swap_figures
from infra.local.settings import read_settings
from infra.local.stack import stack_status
from serving.protocol.client import PredictClient
from serving.protocol.replicas import Replicas
from serving.rollout.promote import promote
from serving.rollout.publish import publish
from serving.rollout.registry import Registry
from serving.rollout.rollback import rollback
from serving.rollout.serving_model import ServingModel
from serving.rollout.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from infra.bench.latency import Latency
    from infra.bench.load import Calls
    from infra.bench.swaps import SwapFigures
    from infra.local.stack import Stack

CLIENTS, LOADED_ROWS = 8, 100
EARLY_SWAP = 5
_TARGETS_MS = {
    (ONE_USER_SIGNATURE, 1, IN_PROCESS): 1.0,
    (ONE_USER_SIGNATURE, 100, IN_PROCESS): 1.5,
    (ONE_USER_SIGNATURE, 100, GRPC): 0.2,
    (ONE_USER_SIGNATURE, 100, REST): 0.5,
    (ROWS_SIGNATURE, 500, REST): 4.9,
}
"""Of the graph, in process: its fixed cost. Of the server: what it adds, no more than before graphs became cheaper.

A ratio to the call in process would call the server slower whenever a graph becomes faster.
"""
_TARGET_SWAP_RATIO, _TARGET_MEMORY_RATIO = 2.0, 1.1


def measure(
    context: typer.Context,
    *,
    grpc: Annotated[str, typer.Option(envvar="KESTREL_ARG_GRPC", help="host:port of a server that runs.")] = "",
    rest: Annotated[str, typer.Option(envvar="KESTREL_ARG_REST", help="Its REST address, http://host:port.")] = "",
    folder: Annotated[
        Path | None, typer.Option(envvar="KESTREL_ARG_FOLDER", help="A folder that it sees under the same path.")
    ] = None,
    namespace: Annotated[str, typer.Option(envvar="KESTREL_ARG_NAMESPACE", help="Whose ranker.")] = "",
    repeats: Annotated[int, typer.Option(min=20, help="Calls of each kind and size.")] = 400,
    swaps: Annotated[int, typer.Option(min=1, help="Promotions and rollbacks under load.")] = 20,
    reloads: Annotated[int, typer.Option(min=EARLY_SWAP + 1, help="Version swaps for the memory.")] = 50,
) -> None:
    """Print and record latencies, swaps under load, and memory after many swaps."""
    console = Console()
    try:
        if bool(grpc) != bool(rest):
            msg = f"expected both --grpc and --rest, or neither; received grpc={grpc!r}, rest={rest!r}"
            raise BenchError(msg)
        state = state_folder(os.environ)
        ranker = promoted_ranker(state, namespace or read_settings(state, os.environ).namespace)
        given = {"KESTREL_MODEL_SERVER_GRPC": grpc, "KESTREL_MODEL_SERVER_REST": rest} if grpc else {}
        parts = ["mlflow"] if grpc else ["mlflow", "model-server"]
        say = console.log
        with private_stack(parts, given=given, folder=folder, say=lambda text: say(text.strip())) as stack:
            figures = _measure(stack, ranker, console, repeats=repeats, swaps=swaps, reloads=reloads)
        record_results(context, "serving", figures, console)
    except JobError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(int(error.exit_code)) from error


def _measure(stack: Stack, ranker: Ranker, console: Console, *, repeats: int, swaps: int, reloads: int) -> list[Figure]:
    settings = stack.settings
    work = stack.places.state / "bench"
    release = ranker.release
    console.log(f"Registering {swaps + 1} copies of {release.namespace} version {release.ranker.version} ...")
    versions = register_copies(settings.mlflow_uri, ranker, work / "run", swaps + 1)
    model = _serving_model(stack, ranker)
    publish(model, versions[0])
    promote(model, versions[0])
    console.log(f"Measuring latencies: {repeats} calls of each kind and size, in turns ...")
    addresses = settings.model_server_grpc, settings.model_server_rest
    latencies = [one for group in measure_latencies(ranker, *addresses, model.name, repeats) for one in group]
    console.print(_latency_table(latencies))
    console.print(_mean_table(latencies))
    console.log(f"{CLIENTS} clients, {LOADED_ROWS} rows each; {swaps} times publish, promote, roll back ...")
    inputs = ranker.inputs(ONE_USER_SIGNATURE, LOADED_ROWS)
    with under_load(
        settings.model_server_grpc, model.name, ONE_USER_SIGNATURE, inputs, clients=CLIENTS, work=work
    ) as calls:
        done = run_swaps(_steps(model, versions[1:]))
    swapped = swap_figures(calls, done)
    _print_swaps(console, calls, swapped, len(done))
    refused = Figure("calls refused under load", calls.refused, "calls", "lower", 0, hard=True)
    figures = [*_latency_figures(latencies), *_swap_figures(swapped), refused]
    pid = next((row.pid for row in stack_status(stack.places.state, {}) if row.name == "model-server"), 0)
    if pid:
        console.log(f"Memory: {reloads} swaps ...")
        base_path = Serving(stack.places.state).root / "models" / "bench.memory"
        base_path.mkdir(parents=True)
        memory = dict(measure_memory(model.server, pid, ranker.saved_model, base_path, reloads))
        _print_memory(console, memory)
        figures.extend(_memory_figures(memory))
    else:
        console.log("Memory: not measured, the server is not a process of this stack")
    return figures


def _serving_model(stack: Stack, ranker: Ranker) -> ServingModel:
    settings = Settings(
        state=stack.places.state,
        mlflow_uri=stack.settings.mlflow_uri,
        model_server_grpc=stack.settings.model_server_grpc,
    )
    return ServingModel(
        ranker.release.namespace,
        settings,
        Registry(settings.mlflow_uri),
        Replicas(settings.model_server_grpc, timeout_s=settings.rollout_call_seconds),
        PredictClient(settings.model_server_grpc, timeout_s=settings.rollout_call_seconds),
    )


def _steps(model: ServingModel, versions: list[int]) -> Iterator[tuple[str, Callable[[], object]]]:
    for version in versions:
        yield "publish", partial(publish, model, version)
        yield "promote", partial(promote, model, version)
        yield "roll back", partial(rollback, model)


def _latency_table(latencies: Sequence[Latency]) -> Table:
    table = Table(title="One caller at a time, milliseconds", box=None, title_justify="left")
    for heading in ("signature", "rows", "way", "p50", "p99", "added to in process", "/ in process", "target"):
        table.add_column(heading, justify="left" if heading in {"signature", "way"} else "right")
    for one in latencies:
        target, judged = _target_ms(one), one.p50_ms if one.way == IN_PROCESS else one.added_ms
        verdict = f"<= {target} {_verdict(judged <= target)}" if target else ""
        figures = (f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}", f"{one.added_ms:.2f}", f"{one.ratio:.2f}")
        table.add_row(one.signature_name, str(one.rows), one.way, *figures, verdict)
    return table


def _mean_table(latencies: Sequence[Latency]) -> Table:
    table = Table(title="Where the mean call spends its milliseconds", box=None, title_justify="left")
    for heading in ("signature", "rows", "way", "client and network", "server", "model"):
        table.add_column(heading, justify="left" if heading in {"signature", "way"} else "right")
    for one in latencies:
        if one.mean:
            figures = (one.mean.client_and_network, one.mean.server, one.mean.model)
            table.add_row(one.signature_name, str(one.rows), one.way, *(f"{figure:.2f}" for figure in figures))
    return table


def _target_ms(latency: Latency) -> float | None:
    return _TARGETS_MS.get((latency.signature_name, latency.rows, latency.way))


def _latency_figures(latencies: Sequence[Latency]) -> Iterator[Figure]:
    for one in latencies:
        target = _target_ms(one)
        judged = target, target is not None
        call = f"{one.way.replace(' ', '-')} {one.signature_name}, {one.rows} {'row' if one.rows == 1 else 'rows'}"
        yield Figure(f"p50 of {call}", one.p50_ms, "ms", "lower", *(judged if one.way == IN_PROCESS else ()))
        yield Figure(f"p99 of {call}", one.p99_ms, "ms", "lower")
        if one.way != IN_PROCESS:
            yield Figure(f"p50 of {call}, added to in-process", one.added_ms, "ms", "lower", *judged)
            yield Figure(f"p50 of {call}, over in-process", one.ratio, "ratio", "lower")
        if one.mean:
            yield Figure(f"mean of {call}: client and network", one.mean.client_and_network, "ms", "lower")
            yield Figure(f"mean of {call}: server", one.mean.server, "ms", "lower")
            yield Figure(f"mean of {call}: model", one.mean.model, "ms", "lower")


def _print_swaps(console: Console, calls: Calls, figures: SwapFigures, steps: int) -> None:
    table = Table(title=f"{CLIENTS} clients while {steps} steps were taken", box=None, title_justify="left")
    table.add_column("figure")
    table.add_column("", justify="right")
    table.add_column("target")
    table.add_row("calls", f"{figures.calls:,}")
    table.add_row("failed", str(figures.failed), f"0 {_verdict(not figures.failed)}")
    table.add_row("refused: no thread free", f"{calls.refused:,}", f"0 {_verdict(not calls.refused)}")
    table.add_row("p50 of the steady seconds", f"{figures.steady_p50_ms:.2f} ms")
    table.add_row("p99 of the steady seconds", f"{figures.steady_p99_ms:.2f} ms")
    table.add_row("p99 of the worst steady second", f"{figures.worst_steady_p99_ms:.2f} ms")
    for step, p99 in figures.swap_p99_ms.items():
        table.add_row(f"p99 of the worst second with: {step}", f"{p99:.2f} ms")
    within = figures.ratio <= _TARGET_SWAP_RATIO
    table.add_row(
        f"the worst of {figures.swap_seconds} swap seconds over the steady ones",
        f"{figures.ratio:.2f}",
        f"<= {_TARGET_SWAP_RATIO} {_verdict(within)}",
    )
    table.add_row("slowest call", f"{figures.slowest_ms:.2f} ms")
    console.print(table)
    if calls.first_error:
        console.print(f"the first error: {calls.first_error}", highlight=False)


def _swap_figures(swapped: SwapFigures) -> Iterator[Figure]:
    yield Figure("calls under load", swapped.calls, "calls", "higher")
    yield Figure("failed calls under load", swapped.failed, "calls", "lower", 0, hard=True)
    yield Figure("p50 of the steady seconds", swapped.steady_p50_ms, "ms", "lower")
    yield Figure("p99 of the steady seconds", swapped.steady_p99_ms, "ms", "lower")
    yield Figure("p99 of the worst steady second", swapped.worst_steady_p99_ms, "ms", "lower")
    for step, p99 in sorted(swapped.swap_p99_ms.items()):
        yield Figure(f"p99 of the worst second with: {step}", p99, "ms", "lower")
    name = "p99 of the worst swap second over the steady ones"
    yield Figure(name, swapped.ratio, "ratio", "lower", _TARGET_SWAP_RATIO, hard=True)
    yield Figure("slowest call under load", swapped.slowest_ms, "ms", "lower")


def _print_memory(console: Console, memory: Mapping[int, int]) -> None:
    early, late = memory[EARLY_SWAP], memory[max(memory)]
    ratio = late / early
    console.print(
        f"Memory of the server's own: {early / 1e6:.0f} MB after {EARLY_SWAP} swaps, {late / 1e6:.0f} MB after "
        f"{max(memory)}: ratio {ratio:.3f}, target <= {_TARGET_MEMORY_RATIO} {_verdict(ratio <= _TARGET_MEMORY_RATIO)}",
        highlight=False,
    )


def _memory_figures(memory: Mapping[int, int]) -> Iterator[Figure]:
    last = max(memory)
    for swap in (EARLY_SWAP, last):
        yield Figure(f"server memory after {swap} swaps", memory[swap] / 1e6, "MB", "lower")
    name, ratio = f"server memory after {last} swaps over that after {EARLY_SWAP}", memory[last] / memory[EARLY_SWAP]
    yield Figure(name, ratio, "ratio", "lower", _TARGET_MEMORY_RATIO, hard=True)


def _verdict(holds: bool) -> str:  # noqa: FBT001 - reads as it is called
    return "holds" if holds else "MISSED"


if __name__ == "__main__":
    typer.run(measure)
