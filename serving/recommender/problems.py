"""One shape for every error body: object, expected, received, remedy."""

from __future__ import annotations

import difflib
import logging
import re
from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import Request  # noqa: TC002 - FastAPI reads the annotations of a dependency
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from feature_repo.contracts.embeddings import EMBEDDINGS
from feature_repo.contracts.ids import ID_MEANING
from serving.recommender.answers import ProblemDetail, problem_bytes

if TYPE_CHECKING:
    from collections.abc import Collection

    from fastapi import FastAPI

_log = logging.getLogger(__name__)

K_MIN, K_MAX, K_DEFAULT = 1, 100, 10

_PARAMETERS = {
    "k": (f"a whole number from {K_MIN} to {K_MAX}", f"Ask for ?k={K_DEFAULT}, or leave k out."),
    "user": (ID_MEANING, "Ask for /recommend/{user} with a user id as the data set has it."),
    "item": (ID_MEANING, "Ask for /similar/{item} with an item_id of an answer of /recommend/{user}."),
    "by": (f"one of {', '.join(EMBEDDINGS)}", "Ask for ?by=item2vec, say, or leave by out."),
}
_OTHER_NAMES = {
    "k": ("n", "count", "limit", "size", "number", "num", "max", "top", "top_k", "page_size", "per_page"),
    "by": ("kind", "embedding", "embeddings", "type", "method", "model"),
}
"""What other services call a parameter: no likeness of letters leads from one to the other."""
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


class RepeatedParameterError(Exception):
    """A query names a parameter twice: one of the two values would be passed over."""


class UnknownParameterError(Exception):
    """A query names a parameter that its path does not take: passed over, it would seem to have been obeyed."""

    def __init__(self, name: str, known: Collection[str]) -> None:
        super().__init__(name)
        self.name, self.known = name, known


async def refuse_parameters(request: Request) -> None:
    """Refuse a query with a parameter that the request's route does not declare, or with one that stands there twice.

    Raises:
        UnknownParameterError: The first that is unknown.
        RepeatedParameterError: The first that is repeated.
    """
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known:
            raise UnknownParameterError(name, known)
        if count > 1:
            raise RepeatedParameterError(name)


def whole_number(text: object) -> object:
    """Return a whole number's text as it is; ValueError for spellings such as 1.0 and 1_0, which Python takes."""
    if isinstance(text, str) and not re.fullmatch("-?[0-9]+", text):
        msg = "expected a whole number"
        raise ValueError(msg)
    return text


def _unknown_parameter(error: UnknownParameterError) -> ProblemDetail:
    known = sorted(error.known, key=list(_PARAMETERS).index)
    near = _nearest_parameter(error.name, known)
    return ProblemDetail(
        object=error.name[:_SHOWN] or "query",
        expected=f"no parameter but {', '.join(known)}" if known else "no parameters",
        received=f"an unknown parameter, {_shown(error.name)}",
        remedy=f"Did you mean {near}? {_PARAMETERS[near][1]}" if near else "Leave it out; see /docs for every path.",
    )


def _repeated_parameter(name: str) -> ProblemDetail:
    return ProblemDetail(
        object=name, expected="one value", received="several", remedy=f"Give {name} once. {_PARAMETERS[name][1]}"
    )


def _nearest_parameter(name: str, known: Collection[str]) -> str:
    """Return the known parameter that a name stands for or looks like, or nothing."""
    spellings = {other: each for each in known for other in (each, *_OTHER_NAMES[each])}
    near = difflib.get_close_matches(name.lower()[:_SHOWN], spellings, n=1)
    return spellings[near[0]] if near else ""


def _shown(received: str) -> str:
    return repr(received) if len(received) <= _SHOWN else f"{received[:_SHOWN]!r} and {len(received) - _SHOWN} more"


def _invalid_parameter(error: RequestValidationError) -> ProblemDetail:
    first: dict[str, Any] = error.errors()[0]
    name = str(first["loc"][-1])
    expected, remedy = _PARAMETERS.get(name, (first["msg"], "See /docs for what this path takes."))
    return ProblemDetail(object=name, expected=expected, received=_shown(str(first.get("input"))), remedy=remedy)


def add_handlers(app: FastAPI) -> None:
    """Give every error of `app` the one shape."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, _invalid_parameter(error))

    @app.exception_handler(UnknownParameterError)
    async def unknown(_request: Request, error: UnknownParameterError) -> Response:
        return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, _unknown_parameter(error))

    @app.exception_handler(RepeatedParameterError)
    async def repeated(_request: Request, error: RepeatedParameterError) -> Response:
        return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, _repeated_parameter(str(error)))

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
