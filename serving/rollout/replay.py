"""Golden requests to a new version: its scores must be those of the evaluation."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from serving.protocol.errors import CallError, TransientCallError
from serving.protocol.golden import OUTPUT, GoldenRequest
from serving.rollout import candidate
from serving.rollout.admission import admitted
from serving.rollout.errors import WrongScoresError
from serving.rollout.publish import bring_to_server
from serving.rollout.recorded_requests import golden_requests
from serving.rollout.switching import at_work

if TYPE_CHECKING:
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)


def replay(model: ServingModel, version: int) -> dict[str, object]:
    """Send the run's golden requests to the version and compare the scores.

    Raises:
        RejectedError: The gates did not let it through.
        NumberTakenError: Another model serves under its number.
        WrongScoresError: A score differs by more than the tolerance; the version is withdrawn.
        CallError: A call failed for good; the version is withdrawn.
    """
    with at_work(model):
        registered = admitted(model, version)
        requests = golden_requests(model, registered)
        bring_to_server(model, registered)
        try:
            difference = _largest_difference(model, version, requests)
        except TransientCallError:
            raise
        except (CallError, WrongScoresError):
            candidate.withdraw(model, version)
            raise
    return {
        "model": model.name,
        "version": str(version),
        "requests": len(requests),
        "max_abs_difference": difference,
    }


def _largest_difference(model: ServingModel, version: int, requests: tuple[GoldenRequest, ...]) -> float:
    signatures = model.server.signatures(model.name, version=version)
    largest = 0.0
    for place, request in enumerate(requests):
        signature = signatures.get(request.signature_name)
        if signature is None:
            msg = (
                f"{model.name} version {version}: golden request {place} is for the signature "
                f"{request.signature_name!r}, the server has {sorted(signatures)}; evaluate and register it anew"
            )
            raise WrongScoresError(msg)
        outputs = model.predictions.predict(
            model.name,
            request.arrays(signature),
            version=version,
            signature_name=request.signature_name,
            timeout_s=model.settings.rollout_call_seconds,
        )
        difference = request.difference(outputs[OUTPUT])
        if difference > model.settings.rollout_score_tolerance:
            msg = (
                f"{model.name} version {version}: golden request {place}: expected the evaluation's scores to within "
                f"{model.settings.rollout_score_tolerance:g}, received a difference of {difference:g}; the version is "
                f"withdrawn, {model.meanwhile}: look at how it was exported"
            )
            raise WrongScoresError(msg)
        largest = max(largest, difference)
    return largest
