"""The routes: thin, for `engine` and `readiness` do the work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import RedirectResponse, Response
from fastapi_offline import FastAPIOffline
from pydantic import AfterValidator, BeforeValidator
from starlette.background import BackgroundTask

from feature_repo.contracts.embeddings import EMBEDDINGS
from feature_repo.contracts.ids import ID_MAX, ID_MEANING, read_id
from serving.protocol.client import AsyncPredictClient
from serving.recommender.answers import Health, NotReady, Problem, Readiness, Recommendation, Similar, encode
from serving.recommender.engine import Engine
from serving.recommender.event_ids import EventIds, open_event_ids
from serving.recommender.event_log import EventLog, open_event_log
from serving.recommender.event_routes import add_event_routes
from serving.recommender.problems import (
    K_DEFAULT,
    K_MAX,
    K_MIN,
    absent_kind,
    add_handlers,
    problem_response,
    refuse_parameters,
    unknown_item,
    whole_number,
)
from serving.recommender.readiness import look_at_parts, nothing_to_recommend
from serving.recommender.recorder import Recorder
from serving.recommender.user_features import connect
from serving.recommender.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis

    from serving.recommender.settings import Settings

_ABOUT = """
Recommends items to users, and items like an item, and takes what users do.

What a user did is read from Redis, where Feast keeps it; candidates come from several channels: what everything that
the user likes tells, what others liked lately, what is near, rises or is new; the promoted model scores them on the
model server. Without one the list is shown that did best on validation. When a part is down the answer still comes, and
its `degraded` names what was missing. Nothing that the user has already had is recommended, and
titles that are alike come once.
"""

_ID_SCHEMA: dict[str, Any] = {"minLength": 1, "maxLength": ID_MAX}
"""Described, not declared: what is held to it is what `read_id` has left."""
_ID_DESCRIPTION = f"; {ID_MEANING}, white space around it is cut"
UserId = Annotated[
    str,
    Path(
        description=f"A user of the data set; an unknown one gets what is popular with everyone{_ID_DESCRIPTION}",
        examples=["196"],
        json_schema_extra=_ID_SCHEMA,
    ),
    AfterValidator(read_id),
]
ItemId = Annotated[
    str,
    Path(description=f"An item of the catalogue{_ID_DESCRIPTION}", examples=["50"], json_schema_extra=_ID_SCHEMA),
    AfterValidator(read_id),
]
SimilarBy = Annotated[
    str | None,
    Query(
        description="The kind of embedding; the first of the snapshot unless named",
        pattern=f"^({'|'.join(EMBEDDINGS)})$",
        examples=[next(iter(EMBEDDINGS))],
    ),
]
SlateSize = Annotated[
    int,
    Query(description="How many items", ge=K_MIN, le=K_MAX, examples=[K_DEFAULT]),
    BeforeValidator(whole_number),
]

_RESPONSES: dict[int | str, dict[str, Any]] = {
    422: {"model": Problem, "description": "A parameter is not what it should be"},
    503: {"model": Problem, "description": "Nothing to recommend yet: no snapshot was ever published"},
}


@dataclass(frozen=True, slots=True)
class Running:
    """What lives as long as the process."""

    settings: Settings
    redis: Redis
    predictor: AsyncPredictClient
    engine: Engine
    watcher: Watcher
    recorder: Recorder
    events: EventLog
    event_ids: EventIds
    started: float


@contextlib.asynccontextmanager
async def _running(settings: Settings, on_swap: Callable[[], None]) -> AsyncIterator[Running]:
    redis = connect(settings.redis_url.get_secret_value(), settings.recommender_ready_ms / 1000)
    events, event_ids = open_event_log(settings), open_event_ids(settings)
    predictor = AsyncPredictClient(settings.model_server_grpc, timeout_s=settings.recommender_ranking_ms / 1000)
    engine = Engine(settings, redis, predictor)
    watcher = Watcher(settings, engine, on_swap)
    await watcher.look()
    recorder = Recorder(settings, predictor)
    following = [asyncio.create_task(watcher.run()), asyncio.create_task(recorder.run())]
    try:
        yield Running(settings, redis, predictor, engine, watcher, recorder, events, event_ids, time.monotonic())
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        await recorder.close()
        await predictor.close()
        await redis.aclose()
        await events.close()
        await event_ids.close()


def create_app(settings: Settings, on_swap: Callable[[], None] = lambda: None) -> FastAPI:
    """Return the service; its connections are made when it starts, and closed when it stops.

    Args:
        settings: All of them.
        on_swap: Called whenever another snapshot or release has come into force.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _running(settings, on_swap) as running:
            app.state.running = running
            yield

    app: FastAPI = FastAPIOffline(
        title="Kestrel recommender",
        version="1",
        summary=f"Recommendations from {settings.namespace}",
        description=_ABOUT,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_parameters={"tryItOutEnabled": True},
        dependencies=[Depends(refuse_parameters)],
    )
    add_handlers(app)
    _add_answers(app)
    add_event_routes(app)
    _add_states(app)
    return app


def _json(answer: object, status: int = HTTPStatus.OK) -> Response:
    return Response(encode(answer), status, media_type="application/json")


def _add_answers(app: FastAPI) -> None:
    @app.get(
        "/recommend/{user}",
        response_model=Recommendation,
        responses=_RESPONSES,
        tags=["recommendations"],
        summary="What to show this user",
    )
    async def recommend(request: Request, user: UserId, k: SlateSize = K_DEFAULT) -> Response:
        """Return `k` items that the user has not had, best first, each with a reason.

        An unknown user gets what is popular with everyone. `score` is null where nothing was ranked.
        """
        running: Running = request.app.state.running
        online = running.watcher.online
        if online is None:
            return problem_response(HTTPStatus.SERVICE_UNAVAILABLE, nothing_to_recommend(running.watcher))
        answer = await running.engine.recommend(online, user, k)
        response = _json(answer.body)
        if answer.sent is not None:
            response.background = BackgroundTask(running.recorder.take, answer.sent)
        return response

    @app.get(
        "/similar/{item}",
        response_model=Similar,
        responses={**_RESPONSES, 404: {"model": Problem, "description": "No such item, or no vectors of that kind"}},
        tags=["recommendations"],
        summary="What is like this item",
    )
    async def similar(request: Request, item: ItemId, k: SlateSize = K_DEFAULT, by: SimilarBy = None) -> Response:
        """Return the `k` items nearest to one, by the cosine of their vectors of one kind of embedding."""
        running: Running = request.app.state.running
        online = running.watcher.online
        if online is None:
            return problem_response(HTTPStatus.SERVICE_UNAVAILABLE, nothing_to_recommend(running.watcher))
        position = online.snapshot.catalogue.positions.get(item)
        if position is None:
            return problem_response(HTTPStatus.NOT_FOUND, unknown_item(item, len(online.snapshot.catalogue)))
        kinds = online.snapshot.kinds
        if by is not None and by not in kinds:
            return problem_response(HTTPStatus.NOT_FOUND, absent_kind(by, kinds))
        return _json(running.engine.similar(online, position, k, by))


def _add_states(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.get("/health", response_model=Health, tags=["state"], summary="Whether the process lives")
    async def health(request: Request) -> Response:
        """Always 200 while the process runs, whatever its dependencies do."""
        running: Running = request.app.state.running
        uptime = round(time.monotonic() - running.started, 3)
        return _json({"status": "alive", "namespace": running.settings.namespace, "uptime_s": uptime})

    @app.get(
        "/ready",
        response_model=Readiness,
        responses={503: {"model": NotReady, "description": "There is nothing to recommend, not even a popular list"}},
        tags=["state"],
        summary="Which part works",
    )
    async def ready(request: Request) -> Response:
        """Try every part. 200 as long as a list can be given, ranked or not; the parts say what is degraded."""
        running: Running = request.app.state.running
        parts = await look_at_parts(
            running.watcher, running.engine, running.redis, running.settings.recommender_ready_ms / 1000
        )
        body: dict[str, object] = {"parts": {name: part.model_dump() for name, part in parts.items()}}
        if running.watcher.online is None:
            problem = asdict(nothing_to_recommend(running.watcher))
            return _json({**problem, "ready": False, **body}, HTTPStatus.SERVICE_UNAVAILABLE)
        return _json({"ready": True, **body})
