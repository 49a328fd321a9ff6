"""Run a job that ends with whoever started it, however that ends: `python -m dags._lifeline <command>`.

Standard input is a pipe that the starter alone writes to, and never does: its end is the starter's. The kernel closes
it for a process that was killed, too, and the job's whole process group is killed then, Spark's Java included. (Linux
can signal a child whose parent has died, but it means the thread that forked, and no grandchild.)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from threading import Thread
from typing import TYPE_CHECKING

from feature_repo.contracts.exit_codes import SIGNAL_BASE

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(command: Sequence[str]) -> int:
    """Run a command in this process's group, which it leads; return the exit status, as a shell has it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # the group gets it: the job ends as it does, and this process after it
    Thread(target=_end_with_starter, daemon=True).start()
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    return status if status >= 0 else SIGNAL_BASE - status


def _end_with_starter() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
