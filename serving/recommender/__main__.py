"""`python -m serving.recommender` serves; `python -m serving.recommender bench` measures a running one."""

from __future__ import annotations

from typing import Annotated

import typer

from feature_repo.contracts.jobs import COMMAND_LINE, run_job

app = typer.Typer(help=__doc__, **COMMAND_LINE)


@app.callback(invoke_without_command=True)
def serve(context: typer.Context) -> None:
    """Serve recommendations until told to stop."""
    if context.invoked_subcommand is None:
        run_job(_serve)


def _serve() -> dict[str, object]:
    from serving.recommender.server import serve  # noqa: PLC0415 - heavy, and not wanted for --help
    from serving.recommender.settings import load_settings  # noqa: PLC0415 - as above

    return serve(load_settings())


@app.command()
def bench(
    requests: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many requests to measure")] = 300,
    k: Annotated[int, typer.Option(min=1, max=100, help="Items of each answer")] = 10,
) -> None:
    """Measure the latency of a running recommender with users of its data set."""
    from serving.recommender.bench import measure  # noqa: PLC0415 - heavy, and not wanted for --help
    from serving.recommender.settings import load_settings  # noqa: PLC0415 - as above

    run_job(lambda: measure(load_settings(), requests, k))


if __name__ == "__main__":
    app()
