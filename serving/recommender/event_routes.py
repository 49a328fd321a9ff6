"""`POST /events`: what users do, one event or a batch, checked by the contract and appended to the stream."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request  # noqa: TC002 - FastAPI reads the annotations of a route
from fastapi.responses import Response
from pydantic import BaseModel, Field, create_model

from feature_repo.contracts.columns import Dtype
from feature_repo.contracts.datasets import EVENT_TIME, VALUE
from feature_repo.contracts.events import EVENT_ID, SENT, Event, Refusal, RefusedError, check_event, shown
from serving.recommender.answers import Problem, ProblemDetail, encode
from serving.recommender.errors import EventLogError
from serving.recommender.problems import problem_response
from serving.recommender.readiness import nothing_to_recommend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serving.recommender.api import Running
    from serving.recommender.engine import Online

_BYTES_PER_EVENT = 2048
"""More than any event that passes the checks has in JSON."""
_RETRY_AFTER_S = 1
_TYPES: dict[Dtype, Any] = {Dtype.STRING: str, Dtype.FLOAT32: float, Dtype.TIMESTAMP: str}
_EXAMPLES = {
    "user_id": "196",
    "item_id": "242",
    "event_type": "rating",
    VALUE.name: 4.0,
    EVENT_TIME.name: "1998-04-23T10:00:00Z",
    EVENT_ID.name: "5b1e7a52",
}


class _AnswerError(Exception):
    """A request ends here; 503 names the time after which another try may succeed."""

    def __init__(self, status: HTTPStatus, problem: ProblemDetail) -> None:
        headers = {"Retry-After": str(_RETRY_AFTER_S)} if status is HTTPStatus.SERVICE_UNAVAILABLE else None
        self.response = problem_response(status, problem, headers)
        super().__init__(problem)


EventModel = create_model(
    "Event",
    __doc__="Something that a user did with an item at a time.",
    **{
        column.name: (
            _TYPES[column.dtype] | None if column is EVENT_ID else _TYPES[column.dtype],
            Field(
                default=None if column is EVENT_ID else ...,
                description=column.meaning,
                examples=[_EXAMPLES[column.name]],
            ),
        )
        for column in SENT
    },
)  # type: ignore[call-overload]  # the fields are the contract's: their number is not known to the checker
"""An event for the documentation page, made from the contract; `check_event` is what judges."""


class RefusedEvent(Problem):
    """Why one event of a batch was not taken."""

    index: int = Field(description="Its place in the batch, counted from 0", examples=[3])


class Accepted(BaseModel):
    """Answer of `POST /events`."""

    accepted: int = Field(description="How many events the stream has now", examples=[1])
    event_ids: list[str] = Field(description="Their ids, in the order in which they were sent")
    refused: list[RefusedEvent] = Field(description="The others, each with what is wrong with it")


_DOCUMENTATION: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/Event"},
                        {"type": "array", "items": {"$ref": "#/components/schemas/Event"}},
                    ]
                },
                "example": {name: value for name, value in _EXAMPLES.items() if name != EVENT_ID.name},
            }
        },
    }
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {"model": Accepted, "description": "The stream has the accepted events; `refused` names the others"},
    413: {"model": Problem, "description": "More events, or more bytes, than one request may have"},
    422: {"model": Problem, "description": "No event was accepted: `refused` names each fault, or the body is no JSON"},
    503: {"model": Problem, "description": "The stream cannot take events now: send them again, which is harmless"},
}


def add_event_routes(app: FastAPI) -> None:
    """Give `app` the way in for events."""

    @app.post(
        "/events",
        status_code=HTTPStatus.ACCEPTED,
        responses=_RESPONSES,
        openapi_extra=_DOCUMENTATION,
        tags=["events"],
        summary="What a user did",
    )
    async def events(request: Request) -> Response:
        """Take one event, or a list of events: answered when the stream has them, seen in features a moment later.

        The same event may be sent again at any time: an event is what its user, item, type and time say, so it counts
        once. With another value it is a correction. An `event_id` of your own names one event for a time, a day unless
        set otherwise: with another user, item, type or time it is refused. Good events of a list are taken whatever the
        others are.
        """
        try:
            return await _take(request)
        except _AnswerError as error:
            return error.response

    _describe(app)


async def _take(request: Request) -> Response:
    running: Running = request.app.state.running
    online = running.watcher.online
    if online is None:
        raise _AnswerError(HTTPStatus.SERVICE_UNAVAILABLE, nothing_to_recommend(running.watcher))
    batch = await _batch(request, running.settings.recommender_event_batch)
    events, refusals = _checked(batch, online, running)
    try:
        refusals |= await running.event_ids.remember(events)
        accepted = [event for index, event in events.items() if index not in refusals]
        if accepted:
            await running.events.append(accepted)
    except EventLogError as error:
        remedy = "Send the same events again after Retry-After seconds; one that had arrived counts once."
        problem = ProblemDetail("event stream", f"to take {len(events)} events", str(error), remedy)
        raise _AnswerError(HTTPStatus.SERVICE_UNAVAILABLE, problem) from error
    refused = [{"index": index, **asdict(refusal)} for index, refusal in sorted(refusals.items())]
    if not accepted:
        return _none_accepted(refused)
    answer = {"accepted": len(accepted), "event_ids": [event.event_id for event in accepted], "refused": refused}
    return Response(encode(answer), HTTPStatus.ACCEPTED, media_type="application/json")


async def _batch(request: Request, limit: int) -> list[object]:
    """Return what was sent as a list; _AnswerError for more than `limit` events, and for what is no JSON."""
    body = await _body(request, limit * _BYTES_PER_EVENT)
    if body is None:
        raise _AnswerError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_many(limit, "a longer body"))
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        received = f"{shown(body.decode(errors='replace'))} ({error})"
        problem = ProblemDetail("events", "an event, or a list of them, in JSON", received, "See /docs for an example.")
        raise _AnswerError(HTTPStatus.UNPROCESSABLE_ENTITY, problem) from error
    batch: list[object] = sent if isinstance(sent, list) else [sent]
    if len(batch) > limit:
        raise _AnswerError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_many(limit, f"{len(batch)} events"))
    return batch


def _describe(app: FastAPI) -> None:
    """Put the event's model, which no route's signature names, among the documentation's schemas."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        described = original()
        schemas = described.setdefault("components", {}).setdefault("schemas", {})
        schemas.setdefault("Event", EventModel.model_json_schema())
        return described

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend its description


async def _body(request: Request, most: int) -> bytes | None:
    """Return the body, or None as soon as it is longer than `most` bytes."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            return None
        parts.append(part)
    return b"".join(parts)


def _checked(batch: Sequence[object], online: Online, running: Running) -> tuple[dict[int, Event], dict[int, Refusal]]:
    """Return the events that pass, and what is wrong with each other, by their index in the batch."""
    is_item, now = online.snapshot.catalogue.positions.__contains__, running.settings.latest_event_time()
    events: dict[int, Event] = {}
    refusals: dict[int, Refusal] = {}
    for index, raw in enumerate(batch):
        try:
            events[index] = check_event(raw, online.snapshot.schema, is_item, now)
        except RefusedError as error:
            refusals[index] = error.refusal
    return events, refusals


def _none_accepted(refused: list[dict[str, object]]) -> Response:
    """Answer a request of which nothing was taken: the first fault as the problem, and all of them."""
    if not refused:
        problem = ProblemDetail("events", "at least one event", "an empty list", "Send an event.")
        return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, problem)
    first = {name: value for name, value in refused[0].items() if name != "index"}
    body = encode({**first, "accepted": 0, "refused": refused})
    return Response(body, HTTPStatus.UNPROCESSABLE_ENTITY, media_type="application/json")


def _too_many(limit: int, received: str) -> ProblemDetail:
    expected = f"at most {limit} events of {_BYTES_PER_EVENT} bytes each (KESTREL_RECOMMENDER_EVENT_BATCH)"
    return ProblemDetail("events", expected, received, "Send them in several requests.")
