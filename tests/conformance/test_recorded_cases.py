"""Every request recorded from TensorFlow ModelServer, sent to the real server process: the same reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.compare import differences
from tests.conformance.records import CASES, read_records
from tests.conformance.server_process import Server
from tests.conformance.setups import SETUPS, config_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conformance.client import Client
    from tests.conformance.server_process import Launcher


@pytest.fixture(scope="module")
def client_of(
    launcher: Launcher, recorded_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Client]]:
    """Return a function: a setup's name → a client of its server, which is started with the first use."""
    servers: dict[str, Server] = {}

    def client(name: str) -> Client:
        setup = SETUPS[name]
        if name not in servers:
            config = config_text(setup, recorded_models / "models")
            servers[name] = Server(launcher, tmp_path_factory.mktemp(name), config, setup.flags).__enter__()
        return servers[name].wait_ready(setup.ready)

    clients: dict[str, Client] = {}
    try:
        yield lambda name: clients.get(name) or clients.setdefault(name, client(name))
    finally:
        for server in servers.values():
            server.__exit__(None, None, None)


@pytest.mark.parametrize("case", read_records(CASES), ids=lambda case: f"{case['setup']}-{case['id']}")
def test_a_recorded_request_has_the_recorded_reply(case: dict[str, Any], client_of: Callable[[str], Client]) -> None:
    reply = client_of(case["setup"]).send(case["kind"], case["request"])
    found = differences(case["kind"], case["expected"], reply, case["compare"])
    assert not found, "\n".join(found)
