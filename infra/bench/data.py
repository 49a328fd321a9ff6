"""`python -m infra.bench.data`: the data plane at scale, beside engines that do nothing else.

On logs made up for it, in a folder that is thrown away: one feature set on Spark, DuckDB and Polars, in turns; the
whole catalogue by its job; the point-in-time join by the offline store's engines beside DuckDB's bare ASOF join; and
the materialisation into a Redis of its own. Every engine's results are compared before its time counts.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from feature_repo.contracts.features import declared
from feature_repo.contracts.jobs import JobError
from feature_repo.contracts.schemas import MOVIELENS
from infra.bench.data_joins import check_equal, write_join_inputs
from infra.bench.data_online import weigh
from infra.bench.data_world import BenchLog, write_bench_log, write_lake, write_vectors
from infra.bench.errors import BenchError
from infra.bench.process import Taken, run_measured
from infra.bench.results import Figure, machine, record_results
from infra.bench.stack import private_stack
from pipelines.io.duck import duckdb_session
from pipelines.io.sql_text import parquet
from pipelines.synthetic.scale import LogScale

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WORK = "infra.bench.data_work"
ENGINES, WAYS = ("duckdb", "duckdb-packed", "polars", "spark"), ("bare", "duckdb", "spark")
NAMESPACE = "bench"
_TARGET_SPARK, _TARGET_GROWTH, _TARGET_BYTES = 4.0, 2.5, 6e9
_TARGET_JOINS = {"duckdb": 2.0, "spark": 10.0}
_JOINS = {"bare": "DuckDB's ASOF join alone", "duckdb": "offline store, DuckDB", "spark": "offline store, Spark"}
_WRITERS = {"feast": "Feast's own", "arrow": "Arrow batches"}
_WIDTH = 130
_BUSY = 0.5
"""Load average, for each core, from which the figures are marked as those of a shared machine."""


@dataclass(slots=True)
class Runs:
    """What repeated runs of one thing took."""

    taken: list[Taken] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median, without the engine's start."""
        return float(statistics.median(run.result["seconds"] for run in self.taken))

    @property
    def spread(self) -> float | None:
        """Sample standard deviation of the seconds; None of one run."""
        seconds = [run.result["seconds"] for run in self.taken]
        return float(statistics.stdev(seconds)) if len(seconds) > 1 else None

    @property
    def cpu(self) -> float:
        """Median of the processor seconds, which other programs on the machine change less."""
        return float(statistics.median(run.result["cpu"] for run in self.taken))

    @property
    def start(self) -> float:
        """Median seconds that the engine took to start."""
        return float(statistics.median(run.result.get("start", 0.0) for run in self.taken))

    @property
    def peak_bytes(self) -> int:
        """The greatest memory of any run."""
        return max(run.peak_bytes for run in self.taken)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One engine's features of the largest log beside DuckDB's, and beside its own of the smallest."""

    ratio: float
    by_cpu: float
    growth: float
    peak_bytes: int
    """The greatest of any log."""


def measure(  # noqa: PLR0917 - typer's options
    context: typer.Context,
    events: Annotated[list[int] | None, typer.Option(help="Sizes of the logs, ascending.")] = None,
    users: Annotated[int, typer.Option(min=1, help="Users of every log.")] = 200_000,
    items: Annotated[int, typer.Option(min=20, help="Items of every log.")] = 30_000,
    labels: Annotated[int, typer.Option(min=1, help="Labels of the point-in-time join.")] = 2_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every engine.")] = 3,
    catalogue: Annotated[
        int, typer.Option(min=0, help="The largest log whose whole catalogue is computed.")
    ] = 20_000_000,
    folder: Annotated[
        Path | None, typer.Option(envvar="KESTREL_ARG_FOLDER", help="Where to work; default: the temporary folder.")
    ] = None,
) -> None:
    """Print and record features, catalogue, joins and materialisation, each beside what it is held against."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    scales = [LogScale(events=size, users=users, items=items) for size in events or [2_000_000, 20_000_000]]
    try:
        _print_machine(console)
        with tempfile.TemporaryDirectory(prefix="kestrel-bench-data-", dir=folder) as work:
            figures = _measure(console, Path(work), scales, labels=labels, rounds=rounds, catalogue=catalogue)
        record_results(context, "data", figures, console, harmless=["folder"])
    except JobError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(int(error.exit_code)) from error


def _measure(
    console: Console, work: Path, scales: Sequence[LogScale], *, labels: int, rounds: int, catalogue: int
) -> list[Figure]:
    environment = _environment(work / "state")
    logs = []
    for scale in scales:
        console.log(f"Making up {scale.events:,} events ...")
        logs.append(write_bench_log(scale, work / f"log-{scale.events}"))
    console.log(f"Features: {rounds} turns of {', '.join(ENGINES)} on each log ...")
    runs = {log.scale.events: _feature_runs(log, work, environment, rounds) for log in logs}
    console.print(_feature_table(runs))
    figures = list(_feature_figures(runs))
    console.log(f"Point-in-time join, {rounds} turns of {', '.join(WAYS)} ...")
    figures += _join(console, logs[-1], work / "join", environment, labels=labels, rounds=rounds)
    for log in logs:
        if log.scale.events <= catalogue:
            figures += _catalogue(console, log, work, environment)
    return figures


def _environment(state: Path) -> dict[str, str]:
    """Return what the measured processes see: settings of their own, but for those of Java and Spark."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KESTREL_") or "JAVA" in key}
    kept |= {key: value for key, value in os.environ.items() if key.startswith("KESTREL_SPARK_")}
    return kept | {"KESTREL_STATE": str(state)}


def _feature_runs(log: BenchLog, work: Path, environment: Mapping[str, str], rounds: int) -> dict[str, Runs]:
    runs = {engine: Runs() for engine in ENGINES}
    for number in range(rounds):
        for engine in ENGINES:
            out = work / f"features-{log.scale.events}-{number}-{engine}"
            command = [WORK, "features", engine, str(log.folder), str(out), "--cutoff", log.cutoff]
            runs[engine].taken.append(run_measured(command, environment))
        _check_same_features(work, f"features-{log.scale.events}-{number}")
    return runs


def _check_same_features(work: Path, name: str) -> None:
    """BenchError unless every engine has written the same rows."""
    with duckdb_session("4GB") as connection:
        for table in ("users", "items"):
            first, *others = (_feature_rows(work / f"{name}-{engine}", table) for engine in ENGINES)
            for rows in others:
                counts = (f"({first} EXCEPT ALL {rows})", f"({first})", f"({rows})")
                query = ", ".join(f"(SELECT count(*) FROM {counted})" for counted in counts)  # noqa: S608 - the benchmark's own paths
                ((differing, expected, received),) = connection.execute(f"SELECT {query}").fetchall()
                if differing or expected != received:
                    msg = (
                        f"features of {table}: expected the same rows of every engine, received {differing} others of "
                        f"{expected} and {received}: {rows}"
                    )
                    raise BenchError(msg)


def _feature_rows(out: Path, table: str) -> str:
    path = out / f"{table}.parquet"
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    return f"SELECT * FROM {parquet(files)}"  # noqa: S608 - the benchmark's own path


def _feature_table(runs: Mapping[int, Mapping[str, Runs]]) -> Table:
    sizes = list(runs)
    table = _table("Features: statistics, 30 days, last 50 items, top genres; median seconds without the start")
    for heading in (
        "engine",
        *(f"{size / 1e6:g} M" for size in sizes),
        "start",
        "cpu",
        "peak",
        "/ DuckDB",
        "by cpu",
        "growth",
        "target",
    ):
        table.add_column(heading, justify="left" if heading in {"engine", "target"} else "right")
    largest = runs[sizes[-1]]
    for engine in ENGINES:
        beside = _comparison(runs, engine)
        verdicts = (
            [
                f"<= {_TARGET_SPARK:g} x DuckDB {_verdict(beside.ratio <= _TARGET_SPARK)}",
                f"growth <= {_TARGET_GROWTH:g} {_verdict(beside.growth <= _TARGET_GROWTH)}",
                f"memory <= 6 GB {_verdict(beside.peak_bytes <= _TARGET_BYTES)}",
            ]
            if engine == "spark"
            else []
        )
        seconds = [f"{runs[size][engine].seconds:.1f}" for size in sizes]
        start, cpu = f"{largest[engine].start:.1f}", f"{largest[engine].cpu:.1f}"
        ratios = (f"{ratio:.2f}" for ratio in (beside.ratio, beside.by_cpu, beside.growth))
        table.add_row(engine, *seconds, start, cpu, _gigabytes(beside.peak_bytes), *ratios, "\n".join(verdicts))
    return table


def _comparison(runs: Mapping[int, Mapping[str, Runs]], engine: str) -> Comparison:
    sizes = list(runs)
    smallest, largest = runs[sizes[0]], runs[sizes[-1]]
    return Comparison(
        ratio=largest[engine].seconds / largest["duckdb"].seconds,
        by_cpu=largest[engine].cpu / largest["duckdb"].cpu,
        growth=largest[engine].seconds / smallest[engine].seconds,
        peak_bytes=max(of[engine].peak_bytes for of in runs.values()),
    )


def _feature_figures(runs: Mapping[int, Mapping[str, Runs]]) -> Iterator[Figure]:
    sizes = list(runs)
    largest, span = _millions(sizes[-1]), f"{sizes[0] / 1e6:g} M to {_millions(sizes[-1])}"
    for engine in ENGINES:
        name, beside, last = f"features on {engine}", _comparison(runs, engine), runs[sizes[-1]][engine]
        growth, ratio, most = (_TARGET_GROWTH, _TARGET_SPARK, _TARGET_BYTES) if engine == "spark" else (None,) * 3
        for size, of in runs.items():
            yield _median(f"{name}, {_millions(size)}", of[engine])
        yield Figure(f"start of {name}, {largest}", last.start, "s", "lower")
        yield Figure(f"processor time of {name}, {largest}", last.cpu, "s", "lower")
        yield _peak(f"{name}, {span}", beside.peak_bytes, most)
        yield _ratio(f"growth of the median time of {name}, {span}", beside.growth, growth)
        if engine != "duckdb":
            yield _ratio(f"median time of {name} over DuckDB, {largest}", beside.ratio, ratio)
            yield _ratio(f"processor time of {name} over DuckDB, {largest}", beside.by_cpu)


def _join(
    console: Console, log: BenchLog, folder: Path, environment: Mapping[str, str], *, labels: int, rounds: int
) -> list[Figure]:
    folder.mkdir()
    snapshots, count = write_join_inputs(log.events, folder, labels, log.scale.end)
    runs = {way: Runs() for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            runs[way].taken.append(run_measured([WORK, "join", way, str(folder)], environment))
        check_equal({way: runs[way].taken[-1].result for way in WAYS})
    table = _table(f"Point-in-time join: {count:,} labels, {snapshots:,} snapshots; median seconds without the start")
    for heading in ("way", "seconds", "cpu", "peak", "/ bare", "target"):
        table.add_column(heading, justify="left" if heading in {"way", "target"} else "right")
    for way in WAYS:
        ratio = runs[way].seconds / runs["bare"].seconds
        target = _TARGET_JOINS.get(way)
        verdict = f"<= {target:g} {_verdict(ratio <= target)}" if target else ""
        seconds, cpu = f"{runs[way].seconds:.1f}", f"{runs[way].cpu:.1f}"
        figures = (seconds, cpu, _gigabytes(runs[way].peak_bytes), f"{ratio:.2f}")
        table.add_row(_JOINS[way], *figures, verdict)
    console.print(table)
    return list(_join_figures(runs, _millions(log.scale.events)))


def _join_figures(runs: Mapping[str, Runs], size: str) -> Iterator[Figure]:
    for way in WAYS:
        name = f"point-in-time join, {_JOINS[way]}, {size}"
        yield _median(name, runs[way])
        yield Figure(f"processor time of {name}", runs[way].cpu, "s", "lower")
        yield _peak(name, runs[way].peak_bytes)
        if way in _TARGET_JOINS:
            ratio = runs[way].seconds / runs["bare"].seconds
            yield _ratio(f"median time of {name}, over the bare join", ratio, _TARGET_JOINS[way])


def _catalogue(console: Console, log: BenchLog, work: Path, environment: Mapping[str, str]) -> list[Figure]:
    """Compute every feature group of a log by its job, and take the features to Redis."""
    name, size = f"{NAMESPACE}-{log.scale.events}", f"{log.scale.events:,}"
    console.log(f"Filling the lake with {size} events ...")
    write_vectors(write_lake(log, work / "state", name), log.scale.end)
    common = ["--namespace", name, "--cutoff", log.cutoff]
    console.log("The whole catalogue: python -m pipelines features ...")
    taken = run_measured(["pipelines", "features", *common], environment)
    verdict = _verdict(taken.peak_bytes <= _TARGET_BYTES)
    console.print(
        f"Whole catalogue, {size} events: {taken.seconds:.0f} s, start included; "
        f"{_gigabytes(taken.peak_bytes)}, target <= 6 GB {verdict}",
        highlight=False,
    )
    for line in _lines(taken.log, "changed partitions"):
        console.print(f"  {line}", highlight=False)
    with private_stack(["redis"], given={}, folder=work, say=lambda text: console.log(text.strip())) as stack:
        url = stack.settings.redis_url
        online = _online(console, log, name, {**environment, "KESTREL_REDIS_URL": url}, url)
    what = f"the whole catalogue, {_millions(log.scale.events)}"
    seconds = Figure(f"time of {what}", taken.seconds, "s", "lower")
    return [seconds, _peak(what, taken.peak_bytes, _TARGET_BYTES), *online]


def _online(console: Console, log: BenchLog, name: str, environment: Mapping[str, str], redis_url: str) -> list[Figure]:
    size, common = _millions(log.scale.events), ["--namespace", name]
    run_measured(["pipelines", "registry", *common], environment)
    whole = run_measured(["pipelines", "materialize", *common, "--cutoff", log.cutoff], environment)
    liked = declared(MOVIELENS).user_liked_items
    weight = weigh(redis_url, name, liked)
    verified = run_measured(["pipelines", "verify-online", *common], environment).result
    entities = sum(whole.result["rows"].values())
    console.print(
        f"Materialisation, {log.scale.events:,} events: {entities:,} rows of {len(whole.result['rows'])} views in "
        f"{whole.seconds:.1f} s, start included; Redis {_gigabytes(weight.used)}, {weight.per_user:,.0f} bytes for "
        f"each of {weight.users:,} users, {weight.per_row:,.0f} of them {liked.name}; verify-online: "
        f"{verified['values']:,} values, {verified['mismatches']} mismatches",
        highlight=False,
    )
    for line in _lines(whole.log, "entities written"):
        console.print(f"  {line}", highlight=False)
    figures = [
        Figure(f"time of the materialisation, {size}", whole.seconds, "s", "lower"),
        Figure(f"memory of Redis, {size}", weight.used / 1e9, "GB", "lower"),
        Figure(f"memory of Redis for each user, {size}", weight.per_user, "bytes", "lower"),
        Figure(f"{liked.name} bytes per user, {size}", weight.per_row, "bytes", "lower"),
    ]
    return [*figures, *_writers(console, log, name, whole.result["rows"], environment)]


def _writers(
    console: Console, log: BenchLog, name: str, counts: Mapping[str, int], environment: Mapping[str, str]
) -> list[Figure]:
    """Materialise one view by Feast's own writer and by ours; `counts` are the rows of each view."""
    group = declared(MOVIELENS).user_activity
    view, figures = group.view_name, []
    rows = counts[view]
    table = _table(f"Writers side by side: {view}, {rows:,} users, {len(group.features)} features")
    for heading in ("writer", "seconds", "cpu", "entities/s"):
        table.add_column(heading, justify="left" if heading == "writer" else "right")
    for writer, title in _WRITERS.items():
        command = [WORK, "materialise", writer, name, view, log.cutoff]
        taken = run_measured(command, environment).result
        table.add_row(title, f"{taken['seconds']:.1f}", f"{taken['cpu']:.1f}", f"{rows / taken['seconds']:,.0f}")
        what = f"user_activity into Redis, {title}, {_millions(log.scale.events)}"
        figures += [
            Figure(f"time of {what}", taken["seconds"], "s", "lower"),
            Figure(f"processor time of {what}", taken["cpu"], "s", "lower"),
            Figure(f"entities a second of {what}", rows / taken["seconds"], "entities/s", "higher"),
        ]
    console.print(table)
    return figures


def _lines(log: str, phrase: str) -> Iterator[str]:
    """Return the job's own lines that hold a phrase, without time and level."""
    for line in log.splitlines():
        if phrase in line:
            yield line.rpartition(" INFO ")[2].partition(": ")[2]


def _print_machine(console: Console) -> None:
    load = os.getloadavg()[0]
    busy = load > _BUSY * (os.cpu_count() or 1)
    shared = "; the machine is shared: take the ratios, not the seconds" if busy else ""
    console.print(f"{machine()}, load average {load:.1f}{shared}", highlight=False)


def _table(title: str) -> Table:
    return Table(title=title, box=None, title_justify="left")


def _median(what: str, runs: Runs) -> Figure:
    return Figure(f"median time of {what}", runs.seconds, "s", "lower", spread=runs.spread)


def _peak(what: str, count: int, target: float | None = None) -> Figure:
    """Return a figure in GB of what is given in bytes, as is the target."""
    most = None if target is None else target / 1e9
    return Figure(f"peak memory of {what}", count / 1e9, "GB", "lower", most, hard=target is not None)


def _ratio(what: str, ratio: float, target: float | None = None) -> Figure:
    return Figure(what, ratio, "ratio", "lower", target, hard=target is not None)


def _millions(events: int) -> str:
    return f"{events / 1e6:g} M events"


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def _verdict(holds: bool) -> str:  # noqa: FBT001 - reads as it is called
    return "holds" if holds else "MISSED"


if __name__ == "__main__":
    typer.run(measure)
