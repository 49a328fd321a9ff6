"""Running a command so that nothing of it is left, however it, or whoever waits for it, is ended.

The kernel gives a process whose parent has died to its nearest ancestor that asked for such (PR_SET_CHILD_SUBREAPER,
prctl(2)). So whatever a command starts stays below the process that runs it here: in sessions of its own, as a daemon,
with another environment, and when its own parents were killed.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from infra.local.processes import descendants, end_all, wait_until_ended

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_FROM_KERNEL = 0x80
"""The `si_code` of a signal that a terminal sent (sigaction(2)): all of its foreground group have got it."""
_WATCHED = frozenset({signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
_LONGEST_WAIT_S = 3600.0
_STRAGGLERS_S = 2.0
"""How long what outlives a command may take to end by itself, as helpers of Python's do."""
_PATIENCE_S = 10.0
"""How long a command may take to end that was told to by another signal than Ctrl-C's."""
_GRACE_S = 5.0


def run_whole(
    command: Sequence[str], environment: Mapping[str, str], *, patience_s: float, say: Callable[[str], None]
) -> int:
    """Run a command, wait for it, end what it leaves behind, and return its exit status (128 + n for signal n).

    SIGINT, SIGTERM, SIGHUP and SIGQUIT are the command's own affair first, which may have something to put away. A
    second one, or time, ends all of it: `patience_s` seconds after SIGINT, a few after the others. If this process is
    killed, the command gets SIGTERM.

    Raises:
        OSError: There is no such program, or it cannot be run.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)

    def in_the_child() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)

    try:
        process = subprocess.Popen(command, env=dict(environment), preexec_fn=in_the_child)  # noqa: PLW1509 - one thread
        ended_by = _wait(process, patience_s)
        if not ended_by:
            wait_until_ended(_below(), _STRAGGLERS_S)
        ended = end_all(_below, grace_s=_GRACE_S)
        process.poll()
        _reap_others(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    if ended:
        say(f"Ended {ended} processes {'of' if ended_by else 'left behind by'} {command[0]}")
    status = -ended_by or process.wait()
    return status if status >= 0 else 128 - status


def _wait(process: subprocess.Popen[bytes], patience_s: float) -> int:
    """Wait until the command has ended (0), or has to be ended: the signal for it."""
    told, deadline = 0, math.inf
    while process.poll() is None:
        left = deadline - time.monotonic()
        if left <= 0:
            return told
        received = signal.sigtimedwait(_WATCHED, min(left, _LONGEST_WAIT_S))
        if received is None:
            continue
        if received.si_signo == signal.SIGCHLD:
            _reap_others(process)
        elif told:
            return received.si_signo
        else:
            told = received.si_signo
            deadline = time.monotonic() + (patience_s if told == signal.SIGINT else _PATIENCE_S)
            if received.si_code != _FROM_KERNEL:
                process.send_signal(told)
    return 0


def _reap_others(process: subprocess.Popen[bytes]) -> None:
    """Take note of the ends of those that this process was given, so that they leave the kernel's list."""
    with suppress(ChildProcessError):  # there are none
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != process.pid:
            os.waitpid(ended.si_pid, os.WNOHANG)


def _below() -> list[psutil.Process]:
    return descendants(os.getpid())


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")
