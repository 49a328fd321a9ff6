"""Running a plane's job the way Airflow does: by command line, its result the last line of standard output."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.places import REPOSITORY
from infra.local.errors import JobFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TAIL = 15


def run_plane(arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Run `python -m <arguments>` and return its result; JobFailedError has the last lines of what it said."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=dict(environment), capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-_TAIL:])
        msg = f"python -m {' '.join(arguments)} ended with status {done.returncode}:\n{said}"
        raise JobFailedError(msg, done.returncode)
    lines = done.stdout.strip().splitlines()
    result: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return result
