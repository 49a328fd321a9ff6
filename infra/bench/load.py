"""Load: clients that call without pause, in a process of their own, so that nothing but the server slows them down.

    python -m infra.bench.load ADDRESS MODEL SIGNATURE INPUTS.npz OUT.npz CLIENTS

It runs until its standard input is closed, and then writes when each call began (seconds since the epoch), how long it
took (seconds), and whether it failed.
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
from serving.protocol.client import AsyncPredictClient
from serving.protocol.errors import CallError
from serving.rollout.models_config import STABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

_END_SECONDS = 60


@dataclass(slots=True)
class Calls:
    """Every call of a load: one element each, in the order of their ends."""

    began: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    failed: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))
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
        calls.began, calls.seconds, calls.failed = found["began"], found["seconds"], found["failed"]
        calls.first_error = str(found["first_error"])


async def _call_on(
    client: AsyncPredictClient, model: str, signature_name: str, inputs: dict[str, NDArray[Any]], stop: asyncio.Event
) -> list[tuple[float, float, str]]:
    calls = []
    while not stop.is_set():
        began, clock, error = time.time(), time.perf_counter(), ""
        try:
            await client.predict(model, inputs, label=STABLE, signature_name=signature_name)
        except CallError as failure:
            error = str(failure)
        calls.append((began, time.perf_counter() - clock, error))
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
    calls = sorted((call for each in done for call in each), key=lambda call: call[0] + call[1])
    began, seconds, errors = zip(*calls, strict=True)
    np.savez(
        taken,
        began=np.array(began),
        seconds=np.array(seconds),
        failed=np.array([bool(error) for error in errors]),
        first_error=np.array(next(filter(None, errors), "")),
    )


if __name__ == "__main__":
    address, model, signature_name, given, taken, clients = sys.argv[1:]
    asyncio.run(_load(address, model, signature_name, Path(given), Path(taken), clients=int(clients)))
