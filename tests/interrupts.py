"""SIGTERM for pytest is what Ctrl-C is: tests end, and fixtures put away what they have started."""

from __future__ import annotations

import os
import signal


def end_by_sigterm_as_by_ctrl_c() -> None:
    """Take SIGTERM for an interruption in this process; in one that it forks, SIGTERM stays what it is."""
    ours = os.getpid()

    def interrupt(number: int, _: object) -> None:
        if os.getpid() == ours:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, interrupt)
