"""kill -9 at a chosen step: a function is replaced by one that ends the process before, or after, its nth call."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Step = tuple[str, str, bool, int]
"""Module, name in it, whether to die after the call instead of before, at which call."""


def apply_all(state: str, url: str, namespace: str) -> None:
    """Bring everything that the stream holds into features, as the stream job does."""
    from feature_repo.contracts.places import Namespace
    from pipelines.settings import Settings
    from pipelines.stream.batch import open_users
    from pipelines.stream.items import read_knowledge
    from pipelines.stream.redis_source import ONLINE, RedisSource
    from pipelines.stream.sources import consumer_name
    from pipelines.stream.worker import apply_next, connect

    place = Namespace(Path(state), namespace)
    with closing(connect(Settings(state=Path(state), redis_url=url))) as client:
        source = RedisSource(client, namespace, ONLINE, consumer_name(), claim_after_ms=0)
        users = open_users(client, place, read_knowledge(place, None))
        while apply_next(source, users, wait_s=0):
            pass


def land_and_merge(state: str, url: str, namespace: str) -> None:
    """The job `land`."""
    from feature_repo.contracts.places import Namespace
    from pipelines.jobs import land
    from pipelines.settings import Settings

    land.run(Settings(state=Path(state), redis_url=url), Namespace(Path(state), namespace))


class Mortals:
    """Runs jobs in processes that may die. One process has imported everything and forks for each job."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, job: str, step: Step | None, *arguments: str) -> bool:
        """Run `apply_all` or `land_and_merge` until it dies at `step`; tell whether it ended well before."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([job, step, arguments]) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        assert status in {0, -signal.SIGKILL}, f"{job} ended with {status}; its traceback is on standard error"
        return status == 0


@contextmanager
def mortals() -> Iterator[Mortals]:
    """Start the process that forks."""
    command = [sys.executable, "-m", "tests.killing"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Mortals(process)
        finally:
            process.kill()


def _serve() -> None:
    for module in ("pipelines.jobs.land", "pipelines.stream.worker"):
        importlib.import_module(module)
    for line in sys.stdin:
        job, step, arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_run(job, step, arguments))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _run(job: str, step: Step | None, arguments: list[str]) -> int:
    try:
        if step is not None:
            _arm(*step)
        {"apply_all": apply_all, "land_and_merge": land_and_merge}[job](*arguments)
    except BaseException:  # noqa: BLE001 - whatever it is, the parent tells
        traceback.print_exc()
        return 1
    return 0


def _arm(module: str, name: str, after: bool, nth: int) -> None:  # noqa: FBT001 - a step is a tuple
    owner: Any = importlib.import_module(module)
    *path, attribute = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, attribute), [0]

    def dying(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == nth and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls[0] == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, attribute, dying)


if __name__ == "__main__":
    _serve()
