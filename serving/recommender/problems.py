"""One shape for every error body: object, expected, received, remedy."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from feature_repo.contracts.embeddings import EMBEDDINGS
from feature_repo.contracts.events import ID_MEANING
from serving.recommender.answers import ProblemDetail, problem_bytes

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

_log = logging.getLogger(__name__)

K_MIN, K_MAX, K_DEFAULT = 1, 100, 10

_PARAMETERS = {
    "k": (f"a whole number from {K_MIN} to {K_MAX}", f"Ask for ?k={K_DEFAULT}, or leave k out."),
    "user": (ID_MEANING, "Ask for /recommend/{user} with a user id as the data set has it."),
    "item": (ID_MEANING, "Ask for /similar/{item} with an item_id of an answer of /recommend/{user}."),
    "by": (f"one of {', '.join(EMBEDDINGS)}", "Ask for ?by=item2vec, say, or leave by out."),
}
_SHOWN = 80
"""How much of a bad value is sent back."""


def problem_response(status: int, problem: ProblemDetail, headers: dict[str, str] | None = None) -> Response:
    """Return an error response."""
    return Response(problem_bytes(problem), status, headers, media_type="application/json")


def unknown_item(item_id: str, items: int) -> ProblemDetail:
    """Say that no such item can be recommended."""
    return ProblemDetail(
        object="item",
        expected=f"an item id of the catalogue, which has {items} items",
        received=repr(item_id),
        remedy="Take an item_id from an answer of /recommend/{user}.",
    )


def absent_kind(by: str, kinds: tuple[str, ...]) -> ProblemDetail:
    """Say that the snapshot has no vectors of a kind."""
    return ProblemDetail(
        object="by",
        expected=f"a kind of embedding that the snapshot has: {', '.join(kinds) or 'it has none'}",
        received=repr(by),
        remedy="Leave by out; or name the kind in KESTREL_EMBEDDINGS and run feature_refresh.",
    )


def _invalid_parameter(error: RequestValidationError) -> ProblemDetail:
    first: dict[str, Any] = error.errors()[0]
    name = str(first["loc"][-1])
    expected, remedy = _PARAMETERS.get(name, (first["msg"], "See /docs for what this path takes."))
    received = str(first.get("input"))
    shown = repr(received) if len(received) <= _SHOWN else f"{received[:_SHOWN]!r} and {len(received) - _SHOWN} more"
    return ProblemDetail(object=name, expected=expected, received=shown, remedy=remedy)


def add_handlers(app: FastAPI) -> None:
    """Give every error of `app` the one shape."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, _invalid_parameter(error))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        problem = ProblemDetail(
            object="path",
            expected="GET /recommend/{user}, /similar/{item}, /health, /ready or /docs, or POST /events",
            received=f"{request.method} {request.url.path[:_SHOWN]}: {error.detail}",
            remedy="See /docs for every path, with examples.",
        )
        return problem_response(error.status_code, problem, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        _log.error("%s %s failed", request.method, request.url.path[:_SHOWN], exc_info=error)
        problem = ProblemDetail(
            object="recommender",
            expected="an answer",
            received=f"a fault of the kind {type(error).__name__}",
            remedy="The recommender's log has the details; please report them.",
        )
        return problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, problem)
