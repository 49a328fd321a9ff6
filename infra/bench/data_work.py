"""One piece of the data benchmark in a process of its own: `python -m infra.bench.data_work <piece> ...`.

The last line of output is a JSON object with `seconds` and processor seconds (`cpu`), without the start of the engine,
and what else there is to say.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feature_repo.contracts.places import Namespace
from infra.bench.data_features import duckdb_features, plain_duckdb_features, polars_features, spark_features
from infra.bench.data_joins import bare_asof, duckdb_engine, spark_engine
from infra.bench.data_online import materialise_view
from infra.local.processes import VANISHED, family_of
from pipelines.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pyspark.sql import SparkSession

_FEATURE_OPTIONS = {
    "spark.sql.objectHashAggregate.sortBased.fallbackThreshold": "1000000",
    "spark.sql.ansi.enabled": "false",  # sums that cannot overflow need not be asked
}
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Engine = Annotated[str, typer.Argument(help="duckdb, duckdb-packed, polars or spark.")]
Folder = Annotated[Path, typer.Argument(help="The log's folder.")]
Cutoff = Annotated[datetime, typer.Option(help="As of when.")]


@app.command()
def features(engine: Engine, folder: Folder, out: Path, cutoff: Cutoff) -> None:
    """Compute the feature set with one engine."""
    out.mkdir(parents=True)
    cutoff = cutoff.replace(tzinfo=UTC)
    events, codes = folder / "events.parquet", folder / "codes.parquet"
    genres = json.loads((folder / "genres.json").read_text(encoding="utf-8"))
    if engine == "spark":
        began = time.perf_counter()
        with _spark(_FEATURE_OPTIONS) as (spark, _):
            start = time.perf_counter() - began
            _say(_timed(lambda: spark_features(spark, events, codes, genres, cutoff, out)), start=start)
        return
    if engine == "duckdb":
        _say(_timed(lambda: plain_duckdb_features(events, codes, cutoff, out)))
        return
    compute = {"duckdb-packed": duckdb_features, "polars": polars_features}[engine]
    _say(_timed(lambda: compute(events, codes, genres, cutoff, out)))


@app.command()
def join(engine: Engine, folder: Folder) -> None:
    """Join labels to snapshots: `bare` DuckDB, or the project's offline store on duckdb or spark."""
    if engine == "spark":
        with _spark({}) as (_, settings):
            _say(_timed(lambda: spark_engine(folder, settings)))
        return
    way = {"bare": bare_asof, "duckdb": duckdb_engine}[engine]
    _say(_timed(lambda: way(folder)))


@app.command()
def materialise(writer: str, namespace: str, view: str, cutoff: str) -> None:
    """Write one view to the online store of the settings: `arrow` or `feast`."""
    settings = load_settings()
    _say(_timed(lambda: materialise_view(settings, Namespace(settings.state, namespace), view, cutoff, writer)))


@contextmanager
def _spark(options: dict[str, str]) -> Iterator[tuple[SparkSession, Settings]]:
    """Give a session with a heap of 4 GB, and the settings it was made by."""
    from pipelines.io.spark import spark_session  # noqa: PLC0415 - each engine in its own process

    settings = load_settings()
    given = {"spark_driver_memory": "4g", "spark_options": {**options, **settings.spark_options}}
    settings = settings.model_copy(update=given)
    with spark_session(settings, "bench") as spark:
        yield spark, settings


def _timed(work: Callable[[], Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return what `work` returns, and the seconds that it took: by the clock, and of processors."""
    began, busy = time.perf_counter(), _processor_seconds()
    result = work()
    return {**(result or {}), "seconds": time.perf_counter() - began, "cpu": _processor_seconds() - busy}


def _processor_seconds() -> float:
    """Return the processor time of this process and its children, Spark's Java among them."""
    total = 0.0
    for process in family_of(os.getpid()):
        with suppress(*VANISHED):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _say(result: Mapping[str, Any], **more: float) -> None:
    typer.echo(json.dumps({**result, **more}))


if __name__ == "__main__":
    app()
