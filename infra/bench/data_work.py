"""One piece of the data benchmark in a process of its own: `python -m infra.bench.data_work <piece> ...`.

The last line of output is a JSON object with `seconds`, without the start of the engine, and what else there is to say.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feature_repo.contracts.places import Namespace
from infra.bench.data_features import duckdb_features, polars_features, spark_features
from infra.bench.data_joins import bare_asof, duckdb_engine, spark_engine
from infra.bench.data_online import materialise_view
from pipelines.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

_FALLBACK = "spark.sql.objectHashAggregate.sortBased.fallbackThreshold"
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Engine = Annotated[str, typer.Argument(help="duckdb, polars or spark.")]
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
        from pipelines.io.spark import spark_session  # noqa: PLC0415 - each engine in its own process

        began = time.perf_counter()
        with spark_session(_spark_settings({_FALLBACK: "1000000"}), "bench") as spark:
            start = time.perf_counter() - began
            seconds = _timed(lambda: spark_features(spark, events, codes, genres, cutoff, out))
        _say(seconds=seconds, start=start)
        return
    compute = {"duckdb": duckdb_features, "polars": polars_features}[engine]
    _say(seconds=_timed(lambda: compute(events, codes, genres, cutoff, out)))


@app.command()
def join(engine: Engine, folder: Folder) -> None:
    """Join labels to snapshots: `bare` DuckDB, or the project's offline store on duckdb or spark."""
    if engine == "spark":
        from pipelines.io.spark import spark_session  # noqa: PLC0415 - as above

        settings = _spark_settings({})
        with spark_session(settings, "bench"):
            began = time.perf_counter()
            result = spark_engine(folder, settings)
            seconds = time.perf_counter() - began
        _say(seconds=seconds, **result)
        return
    began = time.perf_counter()
    result = {"bare": bare_asof, "duckdb": duckdb_engine}[engine](folder)
    _say(seconds=time.perf_counter() - began, **result)


@app.command()
def materialise(writer: str, namespace: str, view: str, cutoff: str) -> None:
    """Write one view to the online store of the settings: `arrow` or `feast`."""
    settings = load_settings()
    _say(**materialise_view(settings, Namespace(settings.state, namespace), view, cutoff, writer))


def _spark_settings(options: dict[str, str]) -> Settings:
    settings = load_settings()
    given = {**options, **settings.spark_options}
    return settings.model_copy(update={"spark_driver_memory": "4g", "spark_options": given})


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _say(**result: Any) -> None:  # noqa: ANN401 - whatever JSON can say
    typer.echo(json.dumps(result))


if __name__ == "__main__":
    app()
