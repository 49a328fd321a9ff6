"""How many gRPC calls are computed at the same time, and what becomes of the next one.

The real server gives gRPC a quota of threads (`--grpc_max_threads`). A call that finds none of them free is refused at
once: it does not wait. Its health service takes no thread of the quota, and answers however busy the rest is.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable

_HEALTH = "/grpc.health.v1.Health/"
_EXHAUSTED = "Server Threadpool Exhausted"
"""gRPC's own words, in C++."""


class ThreadLimit(grpc.ServerInterceptor):
    """Refuses calls beyond `threads` at the same time with RESOURCE_EXHAUSTED."""

    def __init__(self, threads: int) -> None:
        self._free = threading.Semaphore(threads)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:  # noqa: ANN401 - as gRPC declares it
        """Return the method's handler within the limit; that of health as it is."""
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_HEALTH):
            return handler
        return grpc.unary_unary_rpc_method_handler(
            self._limited(handler.unary_unary), handler.request_deserializer, handler.response_serializer
        )

    def _limited(self, method: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
        def limited(request: object, context: grpc.ServicerContext) -> object:
            if not self._free.acquire(blocking=False):
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _EXHAUSTED)
            try:
                return method(request, context)
            finally:
                self._free.release()

        return limited
