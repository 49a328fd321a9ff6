"""What a model server keeps of versions that it has unloaded."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import psutil

from serving.protocol.messages import ModelServerConfig
from serving.rollout.models_config import set_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serving.protocol.replicas import Replicas

_MODEL = "bench.memory"
_AVAILABLE_S = 60.0
_SETTLE_S = 0.3


def measure_memory(
    server: Replicas, pid: int, saved_model: Path, base_path: Path, swaps: int
) -> Iterator[tuple[int, int]]:
    """Load a version, then a newer one in its place, `swaps` times; yield (swap, bytes) after each.

    The memory is the process's own (USS): pages that it shares with others, such as TensorFlow's code, don't count.
    """
    process = psutil.Process(pid)
    for swap in range(swaps + 1):
        version = swap + 1
        _copy(saved_model, base_path / str(version))
        config = ModelServerConfig()
        set_model(config, _MODEL, base_path, [version], {})
        server.reload_config(config)
        server.wait_available(_MODEL, version, deadline_s=_AVAILABLE_S)
        _wait_alone(server, version)
        if swap:
            time.sleep(_SETTLE_S)
            yield swap, int(process.memory_full_info().uss)


def _wait_alone(server: Replicas, version: int) -> None:
    deadline = time.monotonic() + _AVAILABLE_S
    while any(status.version != version and status.state != "END" for status in server.model_status(_MODEL)):
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    shutil.copytree(source, part)
    part.rename(target)
