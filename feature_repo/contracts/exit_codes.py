"""What a job's exit status means to whoever started it: the shell, Airflow, or a person."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit status of every job of every plane.

    The orchestrator retries ``TRANSIENT`` and deaths by signal, and nothing else: a second try at the same wrong input
    only hides the message.
    """

    OK = 0
    """Done, or nothing to do because it had been done before."""
    TERMINAL = 1
    """It will fail again until somebody changes the data, the settings or the code."""
    USAGE = 2
    """The command line was wrong (the value that argparse and click use, too)."""
    REJECTED = 10
    """A gate said no. A result, not a fault: nothing is retried and nothing downstream moves."""
    SUPERSEDED = 11
    """A newer interval is already online (a backfill): the rest of this run has nothing to publish."""
    TRANSIENT = 75
    """Worth another try (``EX_TEMPFAIL`` of sysexits.h): a connection refused, a lock held, a disk that was full."""


SIGNAL_BASE = 128
"""Shells report a death by signal n as 128 + n; ``subprocess`` reports -n."""


def is_transient(status: int) -> bool:
    """Tell whether a job that ended with `status` may be tried again: asked to, or ended by a signal (137, 143, -9)."""
    return status == ExitCode.TRANSIENT or status < 0 or status > SIGNAL_BASE
