"""What `up` and `status` show."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from infra.local.stack import PartStatus, Stack

_MEGABYTE = 1024**2
_WIDTH = 140
"""Where there is no terminal to measure."""


def console_for_a_person() -> Console:
    """Return a console as wide as the terminal; in a log or pipe, wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


def addresses(stack: Stack) -> str:
    """Return where a person finds what runs, with the logins."""
    settings = stack.settings
    rows = {
        "Airflow": f"{settings.airflow_uri}  user {settings.airflow_user}, password {settings.airflow_password}",
        "MLflow": f"{settings.mlflow_uri.rstrip('/')}/#/experiments",  # its first page is about language models
        "Recommender": f"{settings.recommender_uri.rstrip('/')}/docs",
        "Model server": f"REST {settings.model_server_rest}, gRPC {settings.model_server_grpc}",
        "Settings": str(stack.places.state / "settings.env"),
    }
    return named_lines(rows)


def named_lines(rows: Mapping[str, str]) -> str:
    """Return a line for each name and what it names, one below the other."""
    return "\n".join(f"{name:<13} {value}" for name, value in rows.items())


def print_status(rows: Iterable[PartStatus], total_memory: int, console: Console | None = None) -> None:
    """Print the parts, and what everything takes, running jobs included."""
    table = Table(box=None)
    for heading in ("part", "state", "pid", "up", "memory", "address"):
        justify: Literal["left", "right"] = "right" if heading in {"pid", "up", "memory"} else "left"
        table.add_column(heading, justify=justify, no_wrap=heading != "state")
    for row in rows:
        table.add_row(
            row.name,
            row.state if row.is_wanted or row.pid else "off",
            str(row.pid) if row.pid else "",
            str(timedelta(seconds=int(time.time()) - row.started)) if row.started else "",
            f"{row.memory / _MEGABYTE:.0f} MB" if row.pid else "",
            row.url,
        )
    console = console or console_for_a_person()
    console.print(table)
    console.print(f"All processes of the stack together: {total_memory / _MEGABYTE:.0f} MB")
