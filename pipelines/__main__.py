"""The data plane's command line: one command per job. Each ends through `contracts.jobs.run_job`."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from feature_repo.contracts.intervals import (
    check_clock,
    check_cutoff,
    check_found_cutoff,
    check_id,
    parse_clock,
    parse_cutoff,
)
from feature_repo.contracts.jobs import COMMAND_LINE, run_job
from feature_repo.contracts.manifests import TrainingKind
from feature_repo.contracts.places import REPOSITORY, Namespace
from feature_repo.options import NamespaceName, checked
from pipelines.feast_store.quick_import import import_without_type_checks
from pipelines.settings import load_settings
from pipelines.sources.mode import Mode
from pipelines.synthetic.scale import LogLayout, LogScale, usual_items, usual_users

app = typer.Typer(no_args_is_help=True, help="Kestrel's data plane.", **COMMAND_LINE)


def _parse_found_cutoff(text: str) -> datetime:
    return check_found_cutoff(parse_cutoff(text), datetime.now(UTC))


def _parse_clock(text: str) -> datetime:
    return check_clock(parse_clock(text), datetime.now(UTC))


def _find_mapping(name: str) -> Path:
    from pipelines.sources.mapping_file import find_mapping  # noqa: PLC0415 - only when there is one

    return find_mapping(name)


Cutoff = Annotated[
    datetime,
    typer.Option(
        "--cutoff", parser=checked(_parse_found_cutoff), metavar="DATE", help="Exclusive end of the interval."
    ),
]
SourcePath = Annotated[
    Path, typer.Option("--source", help="A folder, zip or file: an official MovieLens release, or what --mapping says.")
]
MappingFile = Annotated[
    Path | None,
    typer.Option(
        "--mapping",
        parser=checked(_find_mapping),
        metavar="YAML",
        help="Bring your own events: what the source's columns mean. A YAML, or the name of one that is shipped.",
    ),
]


def _run(job: str, *arguments: object, namespace: str | None = None, **options: object) -> None:
    """Run `pipelines.jobs.<job>.run(settings, [place,] *arguments, **options)`; the engines are imported only now."""

    def start() -> dict[str, object]:
        import_without_type_checks()
        settings = load_settings()
        place = () if namespace is None else (Namespace(settings.state, namespace),)
        result: dict[str, object] = import_module(f"pipelines.jobs.{job}").run(settings, *place, *arguments, **options)
        return result

    run_job(start)


@app.command()
def fetch(
    out: Annotated[Path, typer.Option("--out", help="The folder to write; its name becomes the namespace.")],
) -> None:
    """Bring MovieLens 100K from the package registry, checked against a pinned checksum."""
    _run("fetch", out)


@app.command()
def generate(  # noqa: PLR0917 - typer's options
    out: Annotated[Path, typer.Option("--out", help="The folder to write; its name becomes the namespace.")],
    events: Annotated[int, typer.Option("--events", min=1, help="How many events, exactly.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Equal seeds give equal logs.")] = 0,
    users: Annotated[int | None, typer.Option("--users", min=1, help="Default: one for each hundred events.")] = None,
    items: Annotated[int | None, typer.Option("--items", min=20, help="Default: grows as MovieLens' do.")] = None,
    days: Annotated[int, typer.Option("--days", min=7, help="How many days the log covers.")] = 730,
    layout: Annotated[LogLayout, typer.Option("--layout", help="How it is written.")] = LogLayout.MOVIELENS_CSV,
) -> None:
    """Make up a log of any size: Zipf's law, drift, sessions, seasons, tastes. The same options give the same bytes."""
    try:
        scale = LogScale(
            events=events, users=users or usual_users(events), items=items or usual_items(events), seed=seed, days=days
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    _run("generate", out, scale, layout)


@app.command()
def describe(source: SourcePath, mapping: MappingFile = None) -> None:
    """Say what a source is and what time and disk its ingestion and features will take."""
    _run("describe", source, mapping)


@app.command()
def ingest(  # noqa: PLR0917 - typer makes options of them
    namespace: NamespaceName,
    source: SourcePath,
    cutoff: Annotated[
        datetime | None,
        typer.Option("--cutoff", parser=checked(parse_cutoff), metavar="DATE", help="Default: after the last event."),
    ] = None,
    clock: Annotated[
        datetime | None,
        typer.Option("--clock", parser=checked(_parse_clock), metavar="TIME", help="Now; default: wall time."),
    ] = None,
    mapping: MappingFile = None,
    mode: Annotated[
        Mode, typer.Option("--mode", help="Whether the source is all there is, a part of it, or another data set.")
    ] = Mode.WHOLE,
) -> None:
    """Check a source and write its events before the cutoff, its items and users to the lake."""
    if cutoff is not None:
        try:
            check_cutoff(cutoff, clock or datetime.now(UTC))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="'--cutoff'") from error
    _run("ingest", source, cutoff, clock, mapping, mode, namespace=namespace)


Start = Annotated[
    datetime | None,
    typer.Option("--start", parser=checked(parse_cutoff), metavar="DATE", help="The interval's first day."),
]


@app.command()
def check(namespace: NamespaceName, cutoff: Cutoff, start: Start = None) -> None:
    """Judge what lies in the lake by the declared checks, and write the report."""
    _run("check", cutoff, start, namespace=namespace)


@app.command()
def statistics(namespace: NamespaceName) -> None:
    """Bring the daily statistics tables up to date."""
    _run("statistics", namespace=namespace)


@app.command()
def land(namespace: NamespaceName) -> None:
    """Bring what came by the stream into the lake."""
    _run("land", namespace=namespace)


@app.command()
def stream(
    namespace: NamespaceName,
    check: Annotated[bool, typer.Option("--check", help="Only tell whether a stream job works.")] = False,  # noqa: FBT002 - a flag
) -> None:
    """Bring users' events into their online features as they come, and land them, until told to stop."""
    _run("stream", namespace=namespace, check=check)


@app.command()
def features(
    namespace: NamespaceName,
    cutoff: Cutoff,
    start: Annotated[
        datetime | None,
        typer.Option("--start", parser=checked(parse_cutoff), metavar="DATE", help="Default: from the first event."),
    ] = None,
) -> None:
    """Compute every feature group from the events before the cutoff, on Spark."""
    _run("features", cutoff, start, namespace=namespace)


@app.command()
def embeddings(namespace: NamespaceName, cutoff: Cutoff) -> None:
    """Fit item embeddings on what users liked before the cutoff, on Spark; KESTREL_EMBEDDINGS names the kinds."""
    _run("embeddings", cutoff, namespace=namespace)


@app.command()
def channels(namespace: NamespaceName, cutoff: Cutoff) -> None:
    """Fit the channels of recall that learn from likes on what users liked before the cutoff; choose their variants."""
    _run("channels", cutoff, namespace=namespace)


@app.command()
def registry(namespace: NamespaceName) -> None:
    """Tell Feast of the feature views and services that the contracts declare."""
    _run("registry", namespace=namespace)


@app.command()
def materialize(namespace: NamespaceName, cutoff: Cutoff) -> None:
    """Write the latest features before the cutoff to the online store."""
    _run("materialize", cutoff, namespace=namespace)


@app.command("verify-online")
def verify_online(
    namespace: NamespaceName,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Users, and items, to compare at most.")] = 1000,
) -> None:
    """Compare what the online store returns with what the offline store says as of the last materialisation."""
    _run("verify_online", sample, namespace=namespace)


@app.command()
def publish(namespace: NamespaceName, cutoff: Cutoff) -> None:
    """Publish the catalogue and the online snapshot, and point to it."""
    _run("publish", cutoff, namespace=namespace)


@app.command("training-set")
def training_set(
    namespace: NamespaceName,
    cutoff: Cutoff,
    kind: Annotated[TrainingKind, typer.Option("--kind", help="What it is for.")] = TrainingKind.RANKING,
    candidates: Annotated[
        str,
        typer.Option("--candidates", parser=checked(check_id), help="Of --kind lists: what recall offered."),
    ] = "",
) -> None:
    """Join events, or candidates, to what was known strictly before them, split by time, fit the transforms."""
    if (kind is TrainingKind.LISTS) != bool(candidates):
        received = f"--kind {kind}, {'with' if candidates else 'without'} --candidates"
        msg = f"expected --candidates ID with --kind {TrainingKind.LISTS}, and with no other kind; received {received}"
        raise typer.BadParameter(msg)
    _run("training_set", cutoff, kind, candidates, namespace=namespace)


@app.command()
def questions(
    namespace: NamespaceName,
    cutoff: Cutoff,
    training_set: Annotated[
        str,
        typer.Option("--training-set", parser=checked(check_id), help="Ask from where its model knows no more."),
    ] = "",
    origin: Annotated[
        datetime | None,
        typer.Option("--origin", parser=checked(parse_cutoff), metavar="DATE", help="Ask at this midnight."),
    ] = None,
) -> None:
    """Write questions that lists are judged by: whom to ask at moments of the past, and what they liked next."""
    if training_set and origin is not None:
        msg = "expected --training-set or --origin, received both: the first names its own origin; leave one out"
        raise typer.BadParameter(msg)
    _run("questions", cutoff, training_set, origin, namespace=namespace)


@app.command("feature-page")
def feature_page(
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = REPOSITORY / "docs" / "features.md",
) -> None:
    """Write the page that lists every feature of the contracts, with examples."""
    _run("feature_page", out)


if __name__ == "__main__":
    app(prog_name="python -m pipelines")
