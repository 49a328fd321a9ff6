"""`python -m serving.protocol generate`: collect the protocol's descriptors from the installed wheels."""

from __future__ import annotations

import typer

from feature_repo.contracts.jobs import run_job
from serving.protocol import descriptors

app = typer.Typer(add_completion=False, help=__doc__)


@app.callback()
def commands() -> None:
    """TensorFlow Serving's protocol without TensorFlow."""


@app.command()
def generate() -> None:
    """Write the descriptors that the light clients make their message classes from."""
    run_job(lambda: {"files": descriptors.generate(), "path": str(descriptors.GENERATED)})


if __name__ == "__main__":
    app()
