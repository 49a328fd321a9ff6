"""Running a plane's job the way Airflow does: by command line, its result the last line of standard output."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.exit_codes import is_transient
from feature_repo.contracts.jobs import JobError, TransientError
from feature_repo.contracts.places import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TAIL = 15


class JobFailedError(JobError):
    """A plane's job that was run by its command line did not do what it was asked."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        """Its exit status: a value of `ExitCode`, or one of a death by signal."""


class TransientlyFailedError(JobFailedError, TransientError):
    """The same job may well succeed in a minute."""


def run_plane(arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Run `python -m <arguments>` and return its result.

    Raises:
        JobFailedError: It failed; the message has the last lines of what it said. TransientlyFailedError, if another
            try may succeed.
    """
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=dict(environment), capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-_TAIL:])
        msg = f"python -m {' '.join(arguments)} ended with status {done.returncode}:\n{said}"
        raise (TransientlyFailedError if is_transient(done.returncode) else JobFailedError)(msg, done.returncode)
    lines = done.stdout.strip().splitlines()
    result: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return result
