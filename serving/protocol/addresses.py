"""What the address of a model server stands for: one process, or several replicas behind one name."""

from __future__ import annotations

import socket

import grpc

from serving.protocol.errors import TransientCallError


def resolve(address: str) -> tuple[str, ...]:
    """Return every `host:port` that an address stands for, sorted: a name's addresses, of each part between commas.

    IPv4 if the name has any, else IPv6: one process that listens on both must not count as two.

    Raises:
        TransientCallError: The name is unknown for now.
    """
    found: set[str] = set()
    for part in address.split(","):
        host, _, port = part.strip().rpartition(":")
        try:
            infos = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            msg = (
                f"model server {address}: expected a name that stands for an address, {host!r} does not now: {error}; "
                "KESTREL_MODEL_SERVER_GRPC names it"
            )
            raise TransientCallError(msg, grpc.StatusCode.UNAVAILABLE, str(error)) from error
        first = [info for info in infos if info[0] == socket.AF_INET] or infos
        found |= {f"[{info[4][0]}]:{port}" if ":" in str(info[4][0]) else f"{info[4][0]}:{port}" for info in first}
    return tuple(sorted(found))


def target(address: str) -> str:
    """Return the address as gRPC takes it; several between commas, as numbers."""
    return address if "," not in address else f"ipv4:{','.join(resolve(address))}"
