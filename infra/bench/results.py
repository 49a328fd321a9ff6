"""What a benchmark measured, as a record: `docs/results/<name>.json`."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import psutil

from feature_repo.contracts.places import REPOSITORY
from feature_repo.contracts.publishing import write_json

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import typer
    from rich.console import Console

_RESULTS = REPOSITORY / "docs" / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that a benchmark measured."""

    name: str
    """In plain words, with the size that it was measured at. No other figure of the benchmark has it."""
    value: float | None
    """None if it was not measured."""
    unit: str
    """"ratio" for a number that has none."""
    better: Literal["higher", "lower"]
    target: float | None = None
    """What the value should reach, or at most be."""
    hard: bool = False
    """Whether it is a failure to miss the target."""
    spread: float | None = None
    """Sample standard deviation of what was measured several times, in the value's unit."""


def record_results(
    context: typer.Context, name: str, figures: Sequence[Figure], console: Console, *, harmless: Collection[str] = ()
) -> None:
    """Write a benchmark's results if it ran as it usually does, and print which of the two happened.

    Args:
        context: The command's: it knows which options were given.
        name: The benchmark's.
        figures: What it measured.
        console: Where the line goes.
        harmless: Parameters of the command that do not change what is measured.

    Raises:
        ValueError: As `write_results`.
    """
    given = sorted(set(_given(context)) - set(harmless))
    if given:
        text = f"docs/results/{name}.json: not written, because of the options given: {', '.join(given)}"
    else:
        text = f"Written: {write_results(name, figures).relative_to(REPOSITORY)}"
    console.print(text, highlight=False, soft_wrap=True)


def write_results(name: str, figures: Sequence[Figure], folder: Path = _RESULTS) -> Path:
    """Write `<name>.json`, whole or not at all, and return its path.

    Args:
        name: The benchmark's.
        figures: What it measured, in the order in which they are to be read.
        folder: Where.

    Raises:
        ValueError: Two figures have one name, or a number is NaN or infinite. Nothing is written.
    """
    _check_names(name, figures)
    path = folder / f"{name}.json"
    record = {
        "figures": [_as_json(figure) for figure in figures],
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
    }
    write_json(path, record)
    return path


def machine() -> str:
    """Return in a few words what the benchmark runs on."""
    memory = psutil.virtual_memory().total / 1e9
    python = platform.python_version()
    return f"{os.cpu_count() or 1} cores, {memory:.1f} GB of memory, Python {python}, {platform.platform()}"


def _given(context: typer.Context) -> list[str]:
    """Return the parameters that have not their defaults, by command line or environment."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name != "DEFAULT"]


def _check_names(name: str, figures: Sequence[Figure]) -> None:
    twice = [figure for figure, count in Counter(figure.name for figure in figures).items() if count > 1]
    if twice:
        msg = f"results of {name}: expected every figure once, received two or more of {twice}; name each by its size"
        raise ValueError(msg)


def _as_json(figure: Figure) -> dict[str, object]:
    numbers = {key: _finite(figure, key) for key in ("value", "target", "spread")}
    return asdict(figure) | numbers


def _finite(figure: Figure, key: Literal["value", "target", "spread"]) -> float | None:
    number = getattr(figure, key)
    if number is None:
        return None
    if not math.isfinite(number):
        msg = f"figure {figure.name!r}: expected a finite {key}, received {number}; give None for what is not known"
        raise ValueError(msg)
    return float(number)


def _commit() -> str:
    """Return the short commit, and whether the tree has more than that; the results themselves do not count."""
    commit = _git("rev-parse", "--short", "HEAD")
    changes = _git("status", "--porcelain", "--", ".", f":(exclude){_RESULTS.relative_to(REPOSITORY).as_posix()}")
    if not commit or changes is None:
        return "unknown"
    return f"{commit}+changes" if changes else commit


def _git(*arguments: str) -> str | None:
    """Return what git says of this repository; None where it knows nothing of one."""
    command = ["git", "--no-optional-locks", *arguments]  # looking at the index must not stand in a commit's way
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
