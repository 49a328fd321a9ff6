"""Administration of a model server that is one process or several replicas behind one name.

A reload request reaches one process. So each is sent to every address that the name stands for, and a version counts as
AVAILABLE, a label as set, only where all replicas say so (docs/decisions/0064).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import grpc

from serving.protocol.addresses import resolve
from serving.protocol.client import ModelClient, VersionStatus
from serving.protocol.errors import TransientCallError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Replicas:
    """Every process behind an address; it answers as a ModelClient of all of them.

    Args:
        address: `host:port`, whose name may stand for several addresses; or several of them between commas.
        timeout_s: How long a call to one replica may take, in seconds.

    Raises:
        TransientCallError: The name is unknown for now.
    """

    def __init__(self, address: str, *, timeout_s: float = 30.0) -> None:
        self.address = address
        self.addresses = resolve(address)
        self._clients = tuple(ModelClient(one, timeout_s=timeout_s) for one in self.addresses)

    def model_status(self, model: str) -> tuple[VersionStatus, ...]:
        """Return the model's versions, newest first; one that differs between replicas says on how many it is what."""
        statuses = [{one.version: one for one in client.model_status(model)} for client in self._clients]
        versions = sorted({version for found in statuses for version in found}, reverse=True)
        return tuple(_merged(version, [found.get(version) for found in statuses]) for version in versions)

    def wait_available(self, model: str, version: int, *, deadline_s: float) -> None:
        """Return as soon as `version` is AVAILABLE everywhere.

        Raises:
            CallError: It failed to load on a replica, or `deadline_s` seconds passed there.
        """
        for client in self._clients:
            client.wait_available(model, version, deadline_s=deadline_s)

    def signatures(self, model: str, *, version: int | None = None) -> dict[str, Any]:
        """Return the SignatureDef messages of a loaded version by name: replicas load the same files."""
        return self._clients[0].signatures(model, version=version)

    def labelled_version(self, model: str, label: str) -> int | None:
        """Return the version that a label stands for, None if it stands for none, or not for the same everywhere."""
        found = {client.labelled_version(model, label) for client in self._clients}
        return found.pop() if len(found) == 1 else None

    def reload_config(self, config: Any, *, timeout_s: float | None = None) -> None:  # noqa: ANN401 - see messages
        """Make every replica serve what `config` names.

        Raises:
            CallError: One refused. Those before it have taken the configuration: send the old one to go back.
        """
        for client in self._clients:
            client.reload_config(config, timeout_s=timeout_s)

    def check_unchanged(self) -> None:
        """Make sure that the replicas are those which were told of everything.

        Raises:
            TransientCallError: One has come or gone since.
        """
        now = resolve(self.address)
        if now != self.addresses:
            msg = (
                f"model server {self.address}: its replicas changed meanwhile: expected {', '.join(self.addresses)}, "
                f"received {', '.join(now)}; try again"
            )
            raise TransientCallError(msg, grpc.StatusCode.UNAVAILABLE, "the replicas changed")

    def close(self) -> None:
        """Close the connections."""
        with ExitStack() as stack:
            for client in self._clients:
                stack.callback(client.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _merged(version: int, found: Iterable[VersionStatus | None]) -> VersionStatus:
    """Return one status for a version: what all say, else how many say what, with the first error."""
    statuses = list(found)
    states = [one.state if one is not None else "unknown" for one in statuses]
    failed = next((one for one in statuses if one is not None and one.error_code), None)
    state = states[0]
    if len(set(states)) > 1:
        counts = {each: states.count(each) for each in sorted(set(states))}
        state = f"{', '.join(f'{each} on {count}' for each, count in counts.items())} of {len(states)} replicas"
    return VersionStatus(version, state, failed.error_code if failed else 0, failed.error_message if failed else "")
