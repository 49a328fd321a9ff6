"""Commands of MLflow's that errors tell people to run, whole: they work in any terminal of this machine."""

from __future__ import annotations

import shlex
import sys

DATABASE = "<MLflow's database>"
"""What nobody here knows: on one machine `sqlite:///<state folder>/mlflow/mlflow.db`."""


def restore_run(uri: str, run_id: str) -> str:
    """Return the command that brings back a deleted run of the server at `uri`."""
    return _command(uri, f"runs restore --run-id {run_id}")


def restore_experiment(uri: str, experiment_id: str) -> str:
    """Return the command that brings back a deleted experiment with its runs."""
    return _command(uri, f"experiments restore --experiment-id {experiment_id}")


def remove_experiment(uri: str, experiment_id: str) -> str:
    """Return the command that removes a deleted experiment for good; whoever runs it puts DATABASE in its place."""
    return _command(uri, f"gc --backend-store-uri {DATABASE} --experiment-ids {experiment_id}")


def _command(uri: str, words: str) -> str:
    """Without the address MLflow would change a file of its own, and its script may not be on the PATH."""
    return f"MLFLOW_TRACKING_URI={shlex.quote(uri)} {shlex.quote(sys.executable)} -m mlflow {words}"
