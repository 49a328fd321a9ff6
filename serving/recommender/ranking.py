"""Scores for one user's candidates, from the version that the release names, through the signature `one_user`."""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, SCORE
from serving.protocol.client import busy_pause, predict_request
from serving.protocol.errors import BusyServerError, CallError, TensorError
from serving.recommender.errors import RankingError
from serving.recommender.user_features import user_input

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from numpy.typing import NDArray

    from feature_repo.feast_redis import Stored
    from serving.recommender.recall.channel import Recalled
    from serving.recommender.release import RankingPlan


class Predictor(Protocol):
    """What ranking needs of `serving.protocol.client.AsyncPredictClient`."""

    async def predict(
        self,
        model: str,
        inputs: Mapping[str, NDArray[Any]],
        *,
        version: int | None = None,
        label: str | None = None,
        signature_name: str = "serving_default",
        outputs: Collection[str] = (),
        timeout_s: float | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Return the outputs of one call by name."""
        ...


def ranking_inputs(
    plan: RankingPlan,
    user: Mapping[str, Stored | None],
    candidates: NDArray[np.intp],
    now: datetime,
    answers: Mapping[str, Recalled] = MappingProxyType({}),
) -> dict[str, NDArray[Any]]:
    """Return the raw inputs: `[1, ...]` for the user and the request, `[candidates, ...]` for items and pairs.

    `user` has the user's features and `request_time`; what it lacks, and what is too old at `now`, is sent as missing.
    `answers` has channel → what it found; what it lacks is sent as missing, too.

    Raises:
        StoredValueError: A user feature is of another type than declared.
    """
    inputs = {name: values[candidates] for name, values in plan.item_inputs.items()}
    for lifetime in plan.lifetimes:
        lifetime.expire(inputs, candidates, now)
    inputs |= plan.pairs.values(answers, candidates)
    inputs |= {column.name: user_input(column, user.get(column.name)) for column in plan.user_columns}
    return inputs


def ranking_request(plan: RankingPlan, inputs: Mapping[str, NDArray[Any]]) -> Any:  # noqa: ANN401 - see serving.protocol
    """Return the PredictRequest that `score` sends."""
    return predict_request(
        plan.model, inputs, version=plan.version, signature_name=ONE_USER_SIGNATURE, outputs=(SCORE.name,)
    )


async def score(
    predictor: Predictor,
    plan: RankingPlan,
    inputs: Mapping[str, NDArray[Any]],
    candidates: int,
    timeout_s: float,
) -> NDArray[np.float32]:
    """Return a score for each candidate, within `timeout_s` seconds; a server that had no thread is asked once more.

    Raises:
        RankingError: The model server is away, too slow, refused, or returned something else than `candidates` scores.
    """
    what = f"model server: {plan.model} version {plan.version}"
    try:
        async with asyncio.timeout(timeout_s):
            try:
                outputs = await _ask(predictor, plan, inputs, timeout_s)
            except BusyServerError:
                await asyncio.sleep(busy_pause())
                outputs = await _ask(predictor, plan, inputs, timeout_s)
    except (CallError, TensorError) as error:
        raise RankingError(str(error)) from error
    except TimeoutError as error:
        msg = f"{what}: expected scores within {timeout_s * 1000:.0f} ms, received none; is it overloaded?"
        raise RankingError(msg) from error
    scores = outputs.get(SCORE.name)
    if scores is None or scores.shape != (candidates,) or not np.all(np.isfinite(scores)):
        received = f"outputs {sorted(outputs)}" if scores is None else f"shape {scores.shape}, or numbers not finite"
        expected = f"{candidates} finite numbers as {SCORE.name!r}"
        msg = f"{what}: expected {expected}, received {received}; see the model's export"
        raise RankingError(msg)
    return scores.astype(np.float32, copy=False)


async def _ask(
    predictor: Predictor, plan: RankingPlan, inputs: Mapping[str, NDArray[Any]], timeout_s: float
) -> dict[str, NDArray[Any]]:
    return await predictor.predict(
        plan.model,
        inputs,
        version=plan.version,
        signature_name=ONE_USER_SIGNATURE,
        outputs=(SCORE.name,),
        timeout_s=timeout_s,
    )
