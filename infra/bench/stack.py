"""A stack of the benchmark's own: a state folder that is thrown away, free ports, only the parts that it needs."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from infra.local.settings import ensure_settings_file, set_setting
from infra.local.stack import start_stack, stop_stack
from serving.protocol.free_ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from infra.local.stack import Stack

_PORTS = {
    "KESTREL_REDIS_URL": "redis://:unused@127.0.0.1:{}/0",
    "KESTREL_MLFLOW_URI": "http://127.0.0.1:{}",
    "KESTREL_AIRFLOW_URI": "http://127.0.0.1:{}",
    "KESTREL_MODEL_SERVER_GRPC": "127.0.0.1:{}",
    "KESTREL_MODEL_SERVER_REST": "http://127.0.0.1:{}",
    "KESTREL_RECOMMENDER_URI": "http://127.0.0.1:{}",
}


@contextmanager
def private_stack(
    parts: Sequence[str], *, given: Mapping[str, str], folder: Path | None, say: Callable[[str], None]
) -> Iterator[Stack]:
    """Start `parts` on free ports with a state folder of their own, and leave nothing of it.

    Args:
        parts: Their names, as `make status` shows them.
        given: Settings that win, such as the address of a server that runs already: its part is not started.
        folder: Where the state folder is made; default: the system's temporary one.
        say: Where progress goes.
    """
    with tempfile.TemporaryDirectory(prefix="kestrel-bench-", dir=folder) as name:
        state = Path(name) / "state"
        ensure_settings_file(state)
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        settings = {setting: template.format(ports[setting]) for setting, template in _PORTS.items()} | dict(given)
        for setting, value in settings.items():
            set_setting(state, setting, value)
        environ = {key: value for key, value in os.environ.items() if not key.startswith("KESTREL_")}
        environ["KESTREL_STATE"] = str(state)
        before = signal.signal(signal.SIGTERM, _end)
        try:
            yield start_stack(state, environ, only=parts, say=say)
        finally:
            stop_stack(state, say=say)
            signal.signal(signal.SIGTERM, before)


def _end(number: int, _: object) -> NoReturn:
    """End as the signal says, but by way of every `finally`: else the stack would outlive its benchmark."""
    raise SystemExit(128 + number)
