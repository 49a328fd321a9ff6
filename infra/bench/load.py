"""Load: clients that call without pause, in a process of their own, so that nothing but the server slows them down.

    python -m infra.bench.load ADDRESS MODEL SIGNATURE INPUTS.npz OUT.npz CLIENTS

It runs until its standard input is closed, and then writes when each call began (seconds since the epoch), how long it
took (seconds), and whether it failed. A call that the server had no thread for took no time that means anything: it is
counted by itself, and its client waits for a moment, as a recommender does.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.places import REPOSITORY
from infra.bench.errors import BenchError
from serving.protocol.client import AsyncPredictClient, busy_pause
from serving.protocol.errors import BusyServerError, CallError
from serving.rollout.models_config import STABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

_END_SECONDS = 60


@dataclass(slots=True)
class Calls:
    """Every call of a load that was not refused for want of a thread: one element each, in the order of their ends."""

    began: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    failed: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))
    refused: int = 0
    first_error: str = ""


@contextmanager
def under_load(
    address: str, model: str, signature_name: str, inputs: Mapping[str, NDArray[Any]], *, clients: int, work: Path
) -> Iterator[Calls]:
    """Keep `clients` calling the label `stable` while the block runs; the calls are there when it has ended."""
    calls = Calls()
    given, taken = work / "inputs.npz", work / "calls.npz"
    # Text as fixed-width bytes: nothing is pickled.
    np.savez(given, **{n: a.astype(np.bytes_) if a.dtype == object else a for n, a in inputs.items()})  # type: ignore[arg-type] # numpy's stub reads names as its own options
    command = [sys.executable, "-m", "infra.bench.load", address, model, signature_name, given, taken, str(clients)]
    with subprocess.Popen([str(part) for part in command], cwd=REPOSITORY, stdin=subprocess.PIPE) as process:
        try:
            yield calls
        finally:
            if process.stdin is not None:
                process.stdin.close()
            process.wait(_END_SECONDS)
    if process.returncode:
        msg = f"the load ended with status {process.returncode}: expected it to call {model} at {address} until told"
        raise BenchError(msg)
    with np.load(taken) as found:
        calls.began, calls.seconds = found["began"], found["seconds"]
        calls.failed, calls.refused = found["failed"], int(found["refused"])
        calls.first_error = str(found["first_error"])
    if not len(calls.began):
        msg = f"the load: expected answers of {model}, received {calls.refused} refusals alone: {calls.first_error}"
        raise BenchError(msg)


@dataclass(frozen=True, slots=True)
class _Call:
    began: float
    seconds: float
    error: CallError | None


async def _call_on(
    client: AsyncPredictClient, model: str, signature_name: str, inputs: dict[str, NDArray[Any]], stop: asyncio.Event
) -> list[_Call]:
    calls = []
    while not stop.is_set():
        began, clock, error = time.time(), time.perf_counter(), None
        try:
            await client.predict(model, inputs, label=STABLE, signature_name=signature_name)
        except CallError as failure:
            error = failure
        calls.append(_Call(began, time.perf_counter() - clock, error))
        if isinstance(error, BusyServerError):
            await asyncio.sleep(busy_pause())
    return calls


async def _load(address: str, model: str, signature_name: str, given: Path, taken: Path, *, clients: int) -> None:
    with np.load(given) as found:
        inputs = {n: found[n].astype(object) if found[n].dtype.kind == "S" else found[n] for n in found.files}
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    client = AsyncPredictClient(address, timeout_s=30)
    try:
        done = await asyncio.gather(*(_call_on(client, model, signature_name, inputs, stop) for _ in range(clients)))
    finally:
        await client.close()
    calls = sorted((call for each in done for call in each), key=lambda call: call.began + call.seconds)
    counted = [call for call in calls if not isinstance(call.error, BusyServerError)]
    np.savez(
        taken,
        began=np.array([call.began for call in counted]),
        seconds=np.array([call.seconds for call in counted]),
        failed=np.array([call.error is not None for call in counted], dtype=bool),
        refused=np.array(len(calls) - len(counted)),
        first_error=np.array(next((str(call.error) for call in calls if call.error), "")),
    )


if __name__ == "__main__":
    address, model, signature_name, given, taken, clients = sys.argv[1:]
    asyncio.run(_load(address, model, signature_name, Path(given), Path(taken), clients=int(clients)))
