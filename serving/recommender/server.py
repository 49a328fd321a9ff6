"""The process: binds the address, then serves until it is told to stop."""

from __future__ import annotations

import gc
import logging
import socket
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import uvicorn
from uvicorn.supervisors import Multiprocess

from serving.recommender.errors import AddressError
from serving.recommender.settings import Settings, load_settings

if TYPE_CHECKING:
    from fastapi import FastAPI

_GRACE_S = 5
"""How long requests in flight may take after the signal to stop."""


def bind(uri: str) -> socket.socket:
    """Return a socket bound to the host and port of `uri`.

    Raises:
        AddressError: Something else has the port, or the host is not this machine.
    """
    parts = urlsplit(uri)
    host, port = parts.hostname or "127.0.0.1", parts.port or 0
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        msg = (
            f"address {host}:{port}: expected a free port of this machine, received {error}; "
            "end what uses it, or name another in KESTREL_RECOMMENDER_URI"
        )
        raise AddressError(msg) from error
    listener.set_inheritable(True)
    return listener


def worker_app() -> FastAPI:
    """Return the service in a process of its own, with its log on standard error."""
    from serving.recommender.api import create_app  # noqa: PLC0415 - only where requests are answered

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return create_app(load_settings(), on_swap=_keep_out_of_the_collector)


def _keep_out_of_the_collector() -> None:
    """Hide what stays, a catalogue of many objects, from the garbage collector: its pauses of 40 ms are gone."""
    gc.collect()
    gc.freeze()


def serve(settings: Settings) -> dict[str, object]:
    """Serve until SIGTERM or SIGINT.

    Raises:
        AddressError: The address cannot be bound.
    """
    config = uvicorn.Config(
        "serving.recommender.server:worker_app",
        factory=True,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        workers=settings.recommender_workers,
    )
    with bind(settings.recommender_uri) as listener:
        if settings.recommender_workers > 1:
            Multiprocess(config, sockets=[listener]).run()
        else:
            uvicorn.Server(config).run(sockets=[listener])
    return {"served": settings.recommender_uri}
