"""Send one request over REST or gRPC and return the reply as plain JSON-able data.

A reply has the same form as the ``expected`` field of a case:

* REST: ``{"status": 200, "content_type": "application/json", "body": "..."}``
* gRPC: ``{"code": "OK", "response": {...}}`` or ``{"code": "NOT_FOUND", "details": "..."}``
"""

from __future__ import annotations

import base64
import http.client
import json
import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import grpc
from google.protobuf import json_format
from grpc_health.v1 import health_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

Json = dict[str, Any]

_PREDICTION = "tensorflow.serving.PredictionService"
_MODEL = "tensorflow.serving.ModelService"

METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    f"{_PREDICTION}/Predict": (predict_pb2.PredictRequest, predict_pb2.PredictResponse),
    f"{_PREDICTION}/Classify": (
        classification_pb2.ClassificationRequest,
        classification_pb2.ClassificationResponse,
    ),
    f"{_PREDICTION}/Regress": (regression_pb2.RegressionRequest, regression_pb2.RegressionResponse),
    f"{_PREDICTION}/MultiInference": (
        inference_pb2.MultiInferenceRequest,
        inference_pb2.MultiInferenceResponse,
    ),
    f"{_PREDICTION}/GetModelMetadata": (
        get_model_metadata_pb2.GetModelMetadataRequest,
        get_model_metadata_pb2.GetModelMetadataResponse,
    ),
    f"{_MODEL}/GetModelStatus": (
        get_model_status_pb2.GetModelStatusRequest,
        get_model_status_pb2.GetModelStatusResponse,
    ),
    f"{_MODEL}/HandleReloadConfigRequest": (
        model_management_pb2.ReloadConfigRequest,
        model_management_pb2.ReloadConfigResponse,
    ),
    "grpc.health.v1.Health/Check": (health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse),
}
"""Full gRPC method name to the types of its request and of its response."""


class Client:
    """Both ends of one server under test."""

    def __init__(self, grpc_address: str, rest_address: str) -> None:
        """Open the gRPC channel; REST connects anew for each request."""
        self.rest_address = rest_address
        self._channel = grpc.insecure_channel(grpc_address, options=[("grpc.max_receive_message_length", -1)])

    def close(self) -> None:
        """Close the gRPC channel."""
        self._channel.close()

    def send(self, kind: str, request: Mapping[str, Any], timeout_s: float = 30.0) -> Json:
        """Send the request of a case of that kind and return the reply."""
        if kind == "rest":
            return self.rest(request, timeout_s)
        return self.grpc(request, timeout_s)

    def rest(self, request: Mapping[str, Any], timeout_s: float = 30.0) -> Json:
        """Send one HTTP request, its path and body as they stand."""
        body = request.get("body")
        data = body.encode() if body is not None else None
        if "body_base64" in request:
            data = base64.b64decode(request["body_base64"])
        connection = http.client.HTTPConnection(self.rest_address, timeout=timeout_s)
        try:
            connection.request(request["method"], request["path"], data, dict(request.get("headers", {})))
            reply = connection.getresponse()
            return {
                "status": reply.status,
                "content_type": (reply.getheader("Content-Type") or "").split(";")[0].strip(),
                "body": reply.read().decode("utf-8", "replace"),
            }
        finally:
            connection.close()

    def grpc(self, request: Mapping[str, Any], timeout_s: float = 30.0) -> Json:
        """Call one gRPC method with a request in protobuf JSON (or raw bytes in base64)."""
        name = f"{request['service']}/{request['method']}"
        request_type, response_type = METHODS.get(name, (None, None))
        if "request_base64" in request or request_type is None:
            payload = base64.b64decode(request.get("request_base64", ""))
        else:
            payload = json_format.ParseDict(dict(request["request"]), request_type()).SerializeToString()
        call = self._channel.unary_unary(f"/{name}")
        try:
            raw: bytes = call(payload, timeout=timeout_s)
        except grpc.RpcError as error:
            return {"code": error.code().name, "details": error.details() or ""}
        if response_type is None:
            return {"code": "OK", "response": {"base64": base64.b64encode(raw).decode()}}
        return {"code": "OK", "response": to_json(response_type.FromString(raw))}

    def versions(self, model: str) -> Json:
        """Return ``{"code": "OK", "versions": {"1": ["AVAILABLE", "OK", ""]}}`` of a model."""
        reply = self.grpc(
            {
                "service": _MODEL,
                "method": "GetModelStatus",
                "request": {"model_spec": {"name": model}},
            }
        )
        if reply["code"] != "OK":
            return reply
        return {
            "code": "OK",
            "versions": {
                entry["version"]: [
                    entry.get("state", "UNKNOWN"),
                    entry.get("status", {}).get("error_code", "OK"),
                    entry.get("status", {}).get("error_message", ""),
                ]
                for entry in reply["response"].get("model_version_status", [])
            },
        }


def to_json(message: Message) -> Json:
    """Return a message as protobuf JSON with the field names of its .proto file."""
    text = json_format.MessageToJson(message, preserving_proto_field_name=True)
    return dict(json.loads(text))
