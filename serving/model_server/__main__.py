"""`python -m serving.model_server --port=… --model_config_file=…` serves; `… check` compares a SavedModel's answers."""

from __future__ import annotations

import os
import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotation
from typing import Annotated

import typer

from feature_repo.contracts.isolation import keep_out
from feature_repo.contracts.jobs import COMMAND_LINE, run_job
from serving.model_server.flags import parse_flags

app = typer.Typer(**COMMAND_LINE)


@app.callback()
def commands() -> None:
    """Tools of the model server."""


@app.command()
def check(
    saved_model: Annotated[Path, typer.Option(help="The SavedModel's folder.")],
    golden: Annotated[Path, typer.Option(help="golden.json: requests with the scores that are expected.")],
    out: Annotated[Path, typer.Option(help="Where the report goes.")],
) -> None:
    """Serve a SavedModel on private ports, send it golden requests over gRPC and REST, and report what came back."""
    from serving.model_server.check import check_saved_model  # noqa: PLC0415 - quick help

    run_job(lambda: check_saved_model(saved_model, golden, out))


def serve() -> None:
    """Serve, as tensorflow_model_server does."""
    flags = parse_flags(sys.argv[1:])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    # gRPC's newer event engine hands each message to one more thread: 0.1 ms of a call (docs/decisions/0102).
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
    keep_out("keras")
    from serving.model_server import server  # noqa: PLC0415 - TensorFlow takes seconds

    run_job(lambda: server.serve(flags))


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"]:
        app()
    else:
        serve()
