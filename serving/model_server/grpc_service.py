"""The gRPC side: PredictionService, ModelService and, if asked for, grpc.health.v1."""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped] # ships no types
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from serving.model_server import inference, metrics
from serving.model_server.errors import ServingError, invalid
from serving.protocol.tensors import fill_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import ThreadPoolExecutor
    from contextlib import AbstractContextManager

    from serving.model_server.manager import Manager
    from serving.model_server.servable import Servable
    from serving.model_server.thread_limit import ThreadLimit

log = logging.getLogger(__name__)

_SIGNATURE_FIELD = "signature_def"
_HEALTH_SERVICES = frozenset({"", "ModelService", "PredictionService"})
_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0))


def build_server(
    manager: Manager,
    executor: ThreadPoolExecutor,
    limit: ThreadLimit,
    *,
    health: bool,
    options: Sequence[tuple[str, Any]] = (),
) -> grpc.Server:
    """Return a server with every service registered, without a port; `options` win over the server's own."""
    server = grpc.server(executor, interceptors=[limit], options=(*_UNLIMITED, *options))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(manager), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(manager), server)
    if health:
        health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    return server


def _in_protocol_words(method: Callable[[Any, Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
    """Turn a ServingError into the call's status; anything else is a defect and becomes INTERNAL."""

    @functools.wraps(method)
    def wrapped(self: object, request: object, context: grpc.ServicerContext) -> object:
        try:
            return method(self, request, context)
        except ServingError as error:
            context.abort(error.code, error.message)
        except Exception as error:
            log.exception("%s failed", method.__name__)
            context.abort(grpc.StatusCode.INTERNAL, f"Internal error: {type(error).__name__}: {error}")

    return wrapped


def _counted(method: Callable[[Any, Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
    """Count the requests of a method, and time those that succeed."""

    @functools.wraps(method)
    def wrapped(self: object, request: Any, context: grpc.ServicerContext) -> object:  # noqa: ANN401 - messages
        start = time.perf_counter()
        name, status = request.model_spec.name, "INTERNAL"
        try:
            response = method(self, request, context)
            status = "OK"
        except ServingError as error:
            status = error.code.name
            raise
        finally:
            metrics.REQUEST_COUNT.add((name, status))
        metrics.REQUEST_LATENCY.add(metrics.micros_since(start), (name, method.__name__, "GRPC"))
        return response

    return wrapped


def leased(manager: Manager, spec: Any) -> AbstractContextManager[Servable]:  # noqa: ANN401 - a ModelSpec
    """Hold the servable that a ModelSpec names."""
    choice = spec.WhichOneof("version_choice")
    return manager.leased(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def _required_spec(request: Any) -> Any:  # noqa: ANN401 - messages
    if not request.HasField("model_spec"):
        msg = "Missing ModelSpec"
        raise invalid(msg)
    return request.model_spec


def _fill_spec(spec: Any, name: str, servable: Servable, signature_name: str) -> None:  # noqa: ANN401 - a ModelSpec
    spec.name = name
    spec.version.value = servable.version
    spec.signature_name = signature_name or inference.DEFAULT_SIGNATURE


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc] # generated, untyped
    """Answers from loaded models."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    @_in_protocol_words
    @_counted
    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401, ARG002, N802 - as generated
        """Run a signature on tensors."""
        spec = _required_spec(request)
        with leased(self._manager, spec) as servable:
            inputs = inference.read_tensors(request.inputs)
            outputs = inference.predict(servable, spec.signature_name, inputs, request.output_filter)
            response = predict_pb2.PredictResponse()
            _fill_spec(response.model_spec, spec.name, servable, spec.signature_name)
        for name, array in outputs.items():
            fill_values(response.outputs[name], array)
        return response

    @_in_protocol_words
    @_counted
    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401, ARG002, N802 - as generated
        """Run a classification signature on examples."""
        spec = _required_spec(request)
        response = classification_pb2.ClassificationResponse()
        with leased(self._manager, spec) as servable:
            response.result.CopyFrom(inference.classify(servable, spec.signature_name, request.input))
            _fill_spec(response.model_spec, spec.name, servable, spec.signature_name)
        return response

    @_in_protocol_words
    @_counted
    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401, ARG002, N802 - as generated
        """Run a regression signature on examples."""
        spec = _required_spec(request)
        response = regression_pb2.RegressionResponse()
        with leased(self._manager, spec) as servable:
            response.result.CopyFrom(inference.regress(servable, spec.signature_name, request.input))
            _fill_spec(response.model_spec, spec.name, servable, spec.signature_name)
        return response

    @_in_protocol_words
    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401, ARG002, N802 - as generated
        """Run several signatures of one model on the same examples."""
        spec = request.tasks[0].model_spec if request.tasks else inference_pb2.InferenceTask().model_spec
        with leased(self._manager, spec) as servable:
            return inference.multi_inference(servable, request.tasks, request.input)

    @_in_protocol_words
    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401, ARG002, N802 - as generated
        """Return a version's signatures."""
        return model_metadata(self._manager, request)


def model_metadata(manager: Manager, request: Any) -> Any:  # noqa: ANN401 - messages
    """Answer a GetModelMetadataRequest.

    Raises:
        ServingError: The model is not served, or a field other than `signature_def` is asked for.
    """
    spec = _required_spec(request)
    if not request.metadata_field:
        msg = "GetModelMetadataRequest must specify at least one metadata_field"
        raise invalid(msg)
    for field in request.metadata_field:
        if field != _SIGNATURE_FIELD:
            msg = f"Metadata field {field} is not supported"
            raise invalid(msg)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    signatures = get_model_metadata_pb2.SignatureDefMap()
    with leased(manager, spec) as servable:
        for name, signature in servable.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response.model_spec.name = spec.name
        response.model_spec.version.value = servable.version
    response.metadata[_SIGNATURE_FIELD].Pack(signatures)
    return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc] # generated, untyped
    """Tells what is served, and changes it."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    @_in_protocol_words
    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401, ARG002, N802 - as generated
        """Return the states of a model's versions."""
        return model_status(self._manager, request)

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401, N802 - as generated
        """Serve another configuration; what is refused changes nothing."""
        response = model_management_pb2.ReloadConfigResponse()
        try:
            if request.config.WhichOneof("config") != "model_config_list":
                msg = (
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is "
                    "currently supported"
                )
                raise invalid(msg)
            self._manager.reload(request.config)
        except ServingError as error:
            context.abort(error.code, error.message)
        response.status.SetInParent()
        return response


def model_status(manager: Manager, request: Any) -> Any:  # noqa: ANN401 - messages
    """Answer a GetModelStatusRequest; a label is not looked at, as in the real server.

    Raises:
        ServingError: There is no such model, or no such version of it.
    """
    spec = _required_spec(request)
    version = spec.version.value if spec.HasField("version") else None
    response = get_model_status_pb2.GetModelStatusResponse()
    for status in manager.status(spec.name, version):
        entry = response.model_version_status.add(version=status.version, state=int(status.state))
        entry.status.SetInParent()
        if status.error is not None:
            entry.status.error_code = status.error.number
            entry.status.error_message = status.error.message
    return response


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # generated, untyped
    """Whether the server is there; it knows the same names as the real one."""

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401, N802 - as generated
        """Answer SERVING for the services, NOT_FOUND for anything else."""
        if request.service not in _HEALTH_SERVICES:
            context.abort(grpc.StatusCode.NOT_FOUND, "service name unknown")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
