"""How every job of every plane ends: its result on standard output, its reason on standard error, its exit code.

    JobError                  terminal
    ├── TransientError        worth another try
    ├── RejectedError         a gate said no
    └── SupersededError       a newer interval is online already

Each plane's errors.py derives its own from these.
"""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import sys
import traceback
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from feature_repo.contracts.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No space, no quota, or a file beyond what this process may write."""
COMMAND_LINE: Mapping[str, Any] = MappingProxyType(
    {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
)
"""How every plane sets up its `typer.Typer`: a fault's last words are its sentence, not the lower edge of a box."""
_FULL_DISK_WORDS = (
    *(os.strerror(number) for number in sorted(FULL_DISK)),
    "disk is full",
    "max_temp_directory_size",
    "No usable temporary directory",
)
"""How engines that raise errors of their own (Java, DuckDB, SQLite) tell of it, and Python of a full TMPDIR."""
_FULL_DISK_REMEDY = (
    "the disk is full, or a quota used up; nothing half-written counts: free some of the disk of the state folder "
    "(KESTREL_STATE) and of temporary files (TMPDIR), and run the job again"
)


class JobError(Exception):
    """A job cannot go on. The message names the object, what was expected, what was received, and the remedy.

    `result` is for a job that fails with more to show than a message, such as the path of a report; it ends up where
    the result of a job that succeeds does.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.TERMINAL
    result: Mapping[str, object] | None = None


class TransientError(JobError):
    """The same job may well succeed in a minute."""

    exit_code = ExitCode.TRANSIENT


class RejectedError(JobError):
    """A gate said no; the message is the reason."""

    exit_code = ExitCode.REJECTED


class SupersededError(JobError):
    """The job's interval lies before the one that is online."""

    exit_code = ExitCode.SUPERSEDED


def exit_code_of(error: BaseException) -> ExitCode:
    """Map an error to the exit code that its job ends with."""
    if isinstance(error, JobError):
        return error.exit_code
    if isinstance(error, ConnectionError | TimeoutError) or full_disk(error):
        return ExitCode.TRANSIENT
    return ExitCode.TERMINAL


def full_disk(error: BaseException | None) -> str:
    """Return what an error, or one that it came of, says of a full disk; nothing if it says nothing of the kind."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            return str(error)
        for line in str(error).splitlines():
            if any(words in line for words in _FULL_DISK_WORDS):
                return line.strip()
        error = error.__cause__ or error.__context__
    return ""


def run_job(job: Callable[[], Mapping[str, object]]) -> NoReturn:
    """Run `job` and end the process: the result as the last line of standard output, in JSON, and its exit code.

    A result is small (ids, counts, paths): the orchestrator keeps it. Logs go to standard error. A job that fails
    prints a result only if its error has one. At a terminal a person reads it, over several lines.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    result: Mapping[str, object] | None
    try:
        result = job()
    except Exception as error:  # noqa: BLE001 - the one place where every error becomes an exit code
        code = exit_code_of(error)
        if not isinstance(error, JobError):
            traceback.print_exc()
        message = f"{code.name.lower()}: {_reason(error)}\n"
        result = error.result if isinstance(error, JobError) else None
    else:
        code, message = ExitCode.OK, ""
    if result is not None:
        _print_result(result)
    sys.stderr.write(message)
    if "tensorflow" in sys.modules:
        # The interpreter looks for garbage before it ends; in a model's graph that takes ten seconds. Not everywhere:
        # libraries made with nanobind, as DuckDB, take what is not looked at for a leak, and tell of it.
        gc.freeze()
    sys.exit(code)


def reason_told(status: int, lines: Iterable[str]) -> str:
    """Return why a job ended, whole: its last words, from the line on that says how it ended.

    `run_job` begins that line with the name of the exit code, a command line that was wrong with "Error". Whoever ended
    without such a line, killed or before it could begin, leaves the last line as the reason; nothing of none.

    Args:
        status: The exit status.
        lines: The last lines of standard error, without their ends.
    """
    told = list(lines)
    words = [line for line in told if line.strip()]
    try:
        name = "Error" if status == ExitCode.USAGE else ExitCode(status).name.lower()
    except ValueError:
        return "".join(words[-1:])
    begins = [place for place, line in enumerate(told) if line.startswith(f"{name}: ")]
    return "\n".join(told[begins[0] :]).rstrip() if begins else "".join(words[-1:])


def _reason(error: Exception) -> str:
    full = "" if isinstance(error, JobError) else full_disk(error)
    return f"{full}; {_FULL_DISK_REMEDY}" if full else str(error)


def _print_result(result: Mapping[str, object]) -> None:
    sys.stdout.flush()
    indent = 2 if sys.stdout.isatty() else None
    sys.stdout.write(json.dumps(result, ensure_ascii=False, sort_keys=True, indent=indent) + "\n")
