"""Clients of a model server: predictions (blocking and asyncio) and the administration of its models."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from serving.protocol import messages
from serving.protocol.addresses import target
from serving.protocol.errors import BusyServerError, CallError, TransientCallError
from serving.protocol.tensors import fill_tensor, read_tensor

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
_RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # Behind a name with several addresses every call goes to the next one, not all of them to the first.
    ("grpc.lb_policy_name", "round_robin"),
    # A server that was away for a while is found again within a second, not after gRPC's two minutes of back-off.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_TRANSIENT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
}
_BUSY_S = 5.0
"""How long a blocking caller, who is a job and no user, goes on asking a busy server."""


def predict_request(
    model: str,
    inputs: Mapping[str, NDArray[Any]],
    *,
    version: int | None = None,
    label: str | None = None,
    signature_name: str = "serving_default",
    outputs: Collection[str] = (),
) -> Any:  # noqa: ANN401 - a message class made at run time
    """Return a PredictRequest; with neither `version` nor `label` the newest version answers."""
    request = messages.PredictRequest()
    spec = request.model_spec
    spec.name = model
    spec.signature_name = signature_name
    if version is not None:
        spec.version.value = version
    elif label is not None:
        spec.version_label = label
    for name, array in inputs.items():
        fill_tensor(request.inputs[name], array)
    request.output_filter.extend(outputs)
    return request


def read_outputs(response: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401 - a message class made at run time
    """Return the outputs of a PredictResponse by name."""
    return {name: read_tensor(tensor) for name, tensor in response.outputs.items()}


def busy_pause() -> float:
    """Return how many seconds to wait before a busy server is asked again; callers must not come back in step."""
    return random.uniform(0.01, 0.05)  # noqa: S311 - no secret


def _call_error(error: grpc.RpcError, address: str, what: str) -> CallError:
    return _failure(error.code(), error.details() or "", address, what)


def _failure(code: grpc.StatusCode, details: str, address: str, what: str) -> CallError:
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        remedy = "it is busy: try again, or start it with a higher --grpc_max_threads"
        return BusyServerError(f"model server {address}: {what}: {code.name}: {details}; {remedy}", code, details)
    if code in _TRANSIENT:
        remedy = "is it running? `make status` tells; KESTREL_MODEL_SERVER_GRPC names its address"
        return TransientCallError(f"model server {address}: {what}: {code.name}: {details}; {remedy}", code, details)
    return CallError(f"model server {address}: {what}: {code.name}: {details}", code, details)


class _Channel:
    """A blocking channel that names address and purpose in its errors."""

    def __init__(self, address: str, timeout_s: float, busy_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.busy_s = busy_s
        self._channel = grpc.insecure_channel(target(address), options=_CHANNEL_OPTIONS)

    def method(self, name: str, response: Any) -> grpc.UnaryUnaryMultiCallable[Any, Any]:  # noqa: ANN401 - see messages
        return self._channel.unary_unary(
            name,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=response.FromString,
        )

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Any, Any],
        request: object,
        what: str,
        timeout_s: float | None,
        busy_s: float | None = None,
    ) -> Any:  # noqa: ANN401 - a message class made at run time
        patience = self.busy_s if busy_s is None else busy_s
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        start = time.monotonic()
        while True:
            pause = busy_pause()
            try:
                return method(request, timeout=timeout_s - (time.monotonic() - start))
            except grpc.RpcError as error:
                failure = _call_error(error, self.address, what)
                spent = time.monotonic() - start + pause
                if not isinstance(failure, BusyServerError) or spent >= min(patience, timeout_s):
                    raise failure from error
            time.sleep(pause)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PredictClient(_Channel):
    """Predictions from a blocking caller; safe to share between threads.

    Args:
        address: `host:port` of the server's gRPC side.
        timeout_s: How long a call may take, in seconds, unless the call says otherwise.
        busy_s: How long a server that has no thread for a call is asked again, in seconds, within that time.
    """

    def __init__(self, address: str, *, timeout_s: float = 10.0, busy_s: float = _BUSY_S) -> None:
        super().__init__(address, timeout_s, busy_s)
        self._predict = self.method(_PREDICT, messages.PredictResponse)

    def predict(
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
        """Return the outputs of one call by name; only those in `outputs`, if it names any.

        Raises:
            CallError: The call failed; TransientCallError where it is worth another try.
            TensorError: An input cannot be sent.
        """
        request = predict_request(
            model, inputs, version=version, label=label, signature_name=signature_name, outputs=outputs
        )
        return self.send(request, timeout_s=timeout_s)

    def send(
        self,
        request: Any,  # noqa: ANN401 - see messages
        *,
        timeout_s: float | None = None,
        busy_s: float | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Return the outputs of a PredictRequest by name.

        Raises:
            CallError: The call failed; TransientCallError where it is worth another try.
        """
        what = f"predict {request.model_spec.name}"
        return read_outputs(self.call(self._predict, request, what, timeout_s, busy_s))


class AsyncPredictClient:
    """Predictions inside an event loop; made and closed in that loop.

    Args:
        address: `host:port` of the server's gRPC side.
        timeout_s: How long a call may take, in seconds, unless the call says otherwise.
    """

    def __init__(self, address: str, *, timeout_s: float = 1.0) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._channel = grpc.aio.insecure_channel(target(address), options=_CHANNEL_OPTIONS)
        self._predict: grpc.aio.UnaryUnaryMultiCallable[Any, Any] = self._channel.unary_unary(
            _PREDICT,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=messages.PredictResponse.FromString,
        )

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
        """Return the outputs of one call by name; only those in `outputs`, if it names any.

        Raises:
            CallError: The call failed; TransientCallError where it is worth another try.
            TensorError: An input cannot be sent.
        """
        request = predict_request(
            model, inputs, version=version, label=label, signature_name=signature_name, outputs=outputs
        )
        try:
            response = await self._predict(request, timeout=self.timeout_s if timeout_s is None else timeout_s)
        except grpc.RpcError as error:
            raise _call_error(error, self.address, f"predict {model}") from error
        return read_outputs(response)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """Where one version of a model is in its life: START, LOADING, AVAILABLE, UNLOADING or END."""

    version: int
    state: str
    error_code: int
    error_message: str


class ModelClient(_Channel):
    """Administration: what is served, and what should be.

    Args:
        address: `host:port` of the server's gRPC side.
        timeout_s: How long a call may take, in seconds, unless the call says otherwise.
        busy_s: How long a server that has no thread for a call is asked again, in seconds, within that time.
    """

    def __init__(self, address: str, *, timeout_s: float = 30.0, busy_s: float = _BUSY_S) -> None:
        super().__init__(address, timeout_s, busy_s)
        self._status = self.method(_STATUS, messages.GetModelStatusResponse)
        self._metadata = self.method(_METADATA, messages.GetModelMetadataResponse)
        self._reload = self.method(_RELOAD, messages.ReloadConfigResponse)

    def model_status(self, model: str, *, version: int | None = None) -> tuple[VersionStatus, ...]:
        """Return the model's versions, newest first; a model that the server does not know has none."""
        request = messages.GetModelStatusRequest()
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = version
        try:
            response = self.call(self._status, request, f"status of {model}", None)
        except CallError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return ()
            raise
        statuses = (
            VersionStatus(
                entry.version,
                messages.STATES.get(entry.state, "UNKNOWN"),
                entry.status.error_code,
                entry.status.error_message,
            )
            for entry in response.model_version_status
        )
        return tuple(sorted(statuses, key=lambda status: -status.version))

    def wait_available(self, model: str, version: int, *, deadline_s: float, interval_s: float = 0.1) -> None:
        """Return as soon as `version` is AVAILABLE.

        Raises:
            CallError: It failed to load, or `deadline_s` seconds passed; the server's words are in the message.
        """
        end = time.monotonic() + deadline_s
        while True:
            found = next((status for status in self.model_status(model) if status.version == version), None)
            if found is not None and found.state == "AVAILABLE":
                return
            if found is not None and found.error_code:
                msg = f"model server {self.address}: {model} version {version} did not load: {found.error_message}"
                raise CallError(msg, grpc.StatusCode.FAILED_PRECONDITION, found.error_message)
            if time.monotonic() > end:
                state = found.state if found is not None else "unknown to the server"
                msg = (
                    f"model server {self.address}: {model} version {version}: expected AVAILABLE within "
                    f"{deadline_s:g} s, it is {state}; see the server's log"
                )
                raise TransientCallError(msg, grpc.StatusCode.DEADLINE_EXCEEDED, state)
            time.sleep(interval_s)

    def signatures(self, model: str, *, version: int | None = None) -> dict[str, Any]:
        """Return the SignatureDef messages of a loaded version by name."""
        request = messages.GetModelMetadataRequest()
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = version
        request.metadata_field.append("signature_def")
        response = self.call(self._metadata, request, f"metadata of {model}", None)
        found = messages.SignatureDefMap()
        response.metadata["signature_def"].Unpack(found)
        return dict(found.signature_def)

    def labelled_version(self, model: str, label: str) -> int | None:
        """Return the version that a label stands for on the running server, None if it stands for none.

        Raises:
            CallError: The call failed in another way; TransientCallError where it is worth another try.
        """
        request = messages.GetModelMetadataRequest()
        request.model_spec.name = model
        request.model_spec.version_label = label
        request.metadata_field.append("signature_def")
        try:
            response = self.call(self._metadata, request, f"label {label} of {model}", None)
        except CallError as error:
            if error.transient:
                raise
            return None  # servers say NOT_FOUND, INVALID_ARGUMENT or FAILED_PRECONDITION, as the model's state is
        return int(response.model_spec.version.value)

    def reload_config(self, config: Any, *, timeout_s: float | None = None) -> None:  # noqa: ANN401 - see messages
        """Make the server serve what `config`, a ModelServerConfig, names, and nothing else.

        Raises:
            CallError: The server refused; what it served before, it serves still.
        """
        request = messages.ReloadConfigRequest(config=config)
        response = self.call(self._reload, request, "reload", timeout_s)
        if response.status.error_code:
            details = response.status.error_message
            code = next(code for code in grpc.StatusCode if code.value[0] == response.status.error_code)
            raise _failure(code, details, self.address, "reload refused")
