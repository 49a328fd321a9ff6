"""Requests to try a version with: samples of those that recommenders really sent, golden ones where there are none."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.protocol.client import predict_request
from serving.protocol.errors import RecordFileError
from serving.protocol.golden import GoldenRequest, read_golden
from serving.protocol.recorded import read_requests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)

GOLDEN_ARTIFACT = "golden.json"


@dataclass(frozen=True, slots=True)
class RecordedRequests:
    """PredictRequests without a version, and where they come from."""

    source: str
    """`samples` or `golden`."""
    requests: list[Any]


def golden_requests(model: ServingModel, registered: RegisteredVersion) -> tuple[GoldenRequest, ...]:
    """Return the golden requests of a version's run.

    Raises:
        UnknownVersionError: The run has none.
    """
    with tempfile.TemporaryDirectory(prefix="kestrel-golden-") as folder:
        return read_golden(model.registry.download_run_file(registered.run_id, GOLDEN_ARTIFACT, Path(folder)))


def recorded_requests(
    model: ServingModel, registered: RegisteredVersion, signatures: Mapping[str, Any], limit: int
) -> RecordedRequests:
    """Return the newest sampled requests that fit `signatures`, `limit` at most; the golden ones if none does."""
    samples: list[Any] = []
    for request in _samples(model):
        if len(samples) == limit:
            break
        if fits(request, signatures):
            request.model_spec.ClearField("version_choice")
            samples.append(request)
    if samples:
        return RecordedRequests("samples", samples)
    golden = (
        predict_request(
            model.name, request.arrays(signatures[request.signature_name]), signature_name=request.signature_name
        )
        for request in golden_requests(model, registered)
        if request.signature_name in signatures
    )
    return RecordedRequests("golden", [request for request, _ in zip(golden, range(limit), strict=False)])


def fits(request: Any, signatures: Mapping[str, Any]) -> bool:  # noqa: ANN401 - a message class made at run time
    """Tell whether a model with `signatures` could answer: same inputs, same types, shapes that go together."""
    signature = signatures.get(request.model_spec.signature_name)
    if signature is None or request.inputs.keys() != signature.inputs.keys():
        return False
    if not set(request.output_filter) <= signature.outputs.keys():
        return False
    return all(_tensor_fits(request.inputs[name], info) for name, info in signature.inputs.items())


def _tensor_fits(tensor: Any, info: Any) -> bool:  # noqa: ANN401 - a TensorProto and a TensorInfo
    if tensor.dtype != info.dtype:
        return False
    if info.tensor_shape.unknown_rank:
        return True
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    declared = [dim.size for dim in info.tensor_shape.dim]
    return len(sizes) == len(declared) and all(one in {size, -1} for size, one in zip(sizes, declared, strict=True))


def _samples(model: ServingModel) -> Iterator[Any]:
    """Yield the sampled requests to this model, of the newest period first."""
    folder = model.places.request_samples(model.namespace, model.part)
    for path in sorted(folder.glob("[!.]*.tfrecord"), reverse=True):
        try:
            yield from (request for request in read_requests(path) if request.model_spec.name == model.name)
        except RecordFileError as error:
            log.warning("the rest of a sample is left out: %s", error)
        except FileNotFoundError:  # its recommender has just deleted it, or written it anew
            continue
