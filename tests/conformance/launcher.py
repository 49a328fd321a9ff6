"""Starts server processes by fork, after TensorFlow was imported once: the import is most of what a start costs.

Reads one JSON object a line, {"arguments": [...], "log": "..."}, and answers with the process id. A forked server is
the real one, in a process of its own, but for who imported the modules. All end with this process's standard input.
"""

from __future__ import annotations

import json
import os
import signal
import sys


def _serve(arguments: list[str], log: str) -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    from feature_repo.contracts.jobs import run_job
    from serving.model_server import server
    from serving.model_server.flags import parse_flags

    run_job(lambda: server.serve(parse_flags(arguments)))


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    from serving.model_server import server  # noqa: F401 - what the forks share

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    children = []
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            _serve(order["arguments"], order["log"])
        children.append(child)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
