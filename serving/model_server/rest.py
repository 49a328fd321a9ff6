"""The REST side: an ASGI application; uvicorn reads and writes HTTP.

    POST /v1/models/<name>[/versions/<n>|/labels/<label>]:(predict|classify|regress)
    GET  /v1/models/<name>[/versions/<n>|/labels/<label>][/metadata]

Computation runs in the executor, so that one long request does not hold up the others.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, input_pb2
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.model_server import inference, json_tensors, json_text, metrics
from serving.model_server.errors import ServingError, invalid
from serving.model_server.examples import example_from_json
from serving.model_server.grpc_service import model_metadata, model_status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Executor

    from serving.model_server.manager import Manager
    from serving.model_server.servable import Servable

    Message = dict[str, Any]
    _Answer = Callable[[Servable], str]

log = logging.getLogger(__name__)

_SERVED = re.compile(r"/v1/", re.IGNORECASE)
_VERSION = r"(?:/(?i:versions)/([0-9]+)|/(?i:labels)/([^/:]+))?"
_INFERENCE = re.compile(r"/(?i:v1)/(?i:models)/([^/:]+)" + _VERSION + ":(predict|classify|regress)")
_DESCRIPTION = re.compile(r"/(?i:v1)/(?i:models)(?:/([^/:]+))?" + _VERSION + "(?:/((?i:metadata)))?")
_LARGEST_VERSION = 2**63 - 1
_NOT_FOUND_PAGE = b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
_BAD_REQUEST_PAGE = (
    b"<HTML><HEAD>\n<TITLE>400 Bad Request</TITLE>\n</HEAD><BODY>\n<H1>Bad Request</H1>\n</BODY></HTML>\n"
)
_JSON, _HTML, _TEXT = b"application/json", b"text/html", b"text/plain"
_SIGNATURE_KEY = "signature_name"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"})


class RestProtocol(HttpToolsProtocol):
    """uvicorn's protocol; `scope["target"]` has the request target as it was sent, which errors quote.

    It also closes connections whose request line and headers do not arrive in time; the body is the application's.
    """

    def __init__(self, *arguments: Any, receive_timeout_s: float, **keywords: Any) -> None:  # noqa: ANN401 - passed on
        super().__init__(*arguments, **keywords)
        self._receive_timeout_s = receive_timeout_s
        self._header_timer: asyncio.TimerHandle | None = None

    def on_message_begin(self) -> None:
        """Start the clock with the first byte of a request."""
        super().on_message_begin()
        self._header_timer = self.loop.call_later(self._receive_timeout_s, self.transport.close)

    def on_headers_complete(self) -> None:
        """Add the target to the scope, before the application sees it."""
        self._stop_timer()
        super().on_headers_complete()
        self.scope["target"] = self.url  # type: ignore[typeddict-unknown-key] # ASGI allows further keys

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clock."""
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back to the client."""

    status: int
    body: bytes
    media_type: bytes = _JSON


@dataclass(slots=True)
class _Request:
    """What the metrics tell of a request; empty until the path was understood."""

    model: str = ""
    verb: str = ""


class _BodyTooLargeError(Exception):
    """The body is longer than the server takes."""


class _ClientGoneError(Exception):
    """The client closed the connection before it had sent all."""


class _BodyNotGzipError(Exception):
    """The body is not what its content encoding says."""


class RestApplication:
    """Answers HTTP requests from loaded models.

    Args:
        manager: The models.
        executor: Where requests are computed.
        max_body_bytes: Longer bodies, after decompression, are answered with 413.
        receive_timeout_s: How long a body may take to arrive, in seconds; then the answer is 408.
        metrics_path: Where the page for Prometheus is, if anywhere.
    """

    def __init__(
        self,
        manager: Manager,
        executor: Executor,
        *,
        max_body_bytes: int,
        receive_timeout_s: float = 30.0,
        metrics_path: str | None = None,
    ) -> None:
        self._manager = manager
        self._executor = executor
        self._max_body_bytes = max_body_bytes
        self._receive_timeout_s = receive_timeout_s
        self._metrics_target = metrics_path.encode() if metrics_path is not None else None

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        reply, complete = await self._reply(scope, receive)
        headers = [(b"content-type", reply.media_type), (b"content-length", b"%d" % len(reply.body))]
        if not complete:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _reply(self, scope: Message, receive: Callable[[], Awaitable[Message]]) -> tuple[Reply, bool]:
        """Return the reply, and whether the whole request was read."""
        try:
            body = await self._read_body(scope, receive)
        except _BodyTooLargeError:
            msg = f"Request body too large: expected at most {self._max_body_bytes} bytes; send fewer rows at a time"
            return Reply(413, json_tensors.error_body(msg).encode()), False
        except TimeoutError:
            msg = f"Request body too slow: expected all of it within {self._receive_timeout_s:g} s; send it at once"
            return Reply(408, json_tensors.error_body(msg).encode()), False
        except _ClientGoneError:
            return Reply(400, b""), False
        except _BodyNotGzipError as error:
            return _error_reply(invalid(str(error))), True
        loop = asyncio.get_running_loop()
        target = scope.get("target") or scope["raw_path"]
        return await loop.run_in_executor(self._executor, self.answer, scope["method"], target, body), True

    async def _read_body(self, scope: Message, receive: Callable[[], Awaitable[Message]]) -> bytes:
        headers = dict(scope["headers"])
        if int(headers.get(b"content-length", 0)) > self._max_body_bytes:
            raise _BodyTooLargeError
        async with asyncio.timeout(self._receive_timeout_s):
            body = await self._received(receive)
        return self._unzipped(body) if headers.get(b"content-encoding", b"").lower() == b"gzip" else body

    async def _received(self, receive: Callable[[], Awaitable[Message]]) -> bytes:
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGoneError
            part = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(part)
            if size > self._max_body_bytes:
                raise _BodyTooLargeError
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _unzipped(self, body: bytes) -> bytes:
        unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            plain = unzip.decompress(body, self._max_body_bytes + 1)
        except zlib.error as error:
            msg = f"Request body is not valid gzip data: {error}"
            raise _BodyNotGzipError(msg) from error
        if len(plain) > self._max_body_bytes:
            raise _BodyTooLargeError
        if not unzip.eof:
            msg = "Request body is not valid gzip data: it ends too soon"
            raise _BodyNotGzipError(msg)
        return plain

    def answer(self, method: str, target: bytes, body: bytes) -> Reply:
        """Return the reply to one request; every error becomes one, too."""
        if self._metrics_target is not None and target.partition(b"?")[0] == self._metrics_target:
            return self._metrics_page(target)
        path = target.decode("utf-8", "replace")
        if not _SERVED.match(path):
            return Reply(404, _NOT_FOUND_PAGE, _HTML)
        if method not in _METHODS:
            return Reply(400, _BAD_REQUEST_PAGE, _HTML)
        start = time.perf_counter()
        request = _Request()
        status = "INTERNAL"
        try:
            reply = self._answer(method, path, body, request)
            status = "OK"
            metrics.REQUEST_LATENCY.add(metrics.micros_since(start), (request.model, request.verb, "REST"))
        except ServingError as error:
            status = error.code.name
            return _error_reply(error)
        except Exception as error:
            log.exception("%s %s failed", method, path)
            return Reply(500, json_tensors.error_body(f"Internal error: {type(error).__name__}: {error}").encode())
        finally:
            metrics.REQUEST_COUNT.add((request.model, status))
        return reply

    def _metrics_page(self, target: bytes) -> Reply:
        if target == self._metrics_target:
            return Reply(200, metrics.page().encode(), _TEXT)
        return Reply(400, b"Unexpected path: %b. Should be %b" % (target, target.partition(b"?")[0]), _TEXT)

    def _answer(self, method: str, path: str, body: bytes, request: _Request) -> Reply:
        if method == "POST" and (match := _INFERENCE.fullmatch(path)):
            name, version, label = _decoded(match)
            verb = request.verb = match[4]
            request.model = name
            number = _version_number(version)
            if number is None and version is not None:
                return Reply(400, b"")
            answer = _READERS[verb](body)
            with self._manager.leased(name, number, label) as servable:
                text = answer(servable)
            return Reply(200, text.encode("utf-8", "surrogateescape"))
        if method == "GET" and (match := _DESCRIPTION.fullmatch(path)):
            return self._described(match, request)
        msg = f"Malformed request: {method} {path}"
        raise invalid(msg)

    def _described(self, match: re.Match[str], request: _Request) -> Reply:
        name, version, label = _decoded(match)
        if not name:
            msg = "Missing model name in request."
            raise invalid(msg)
        request.model = name
        number = _version_number(version)
        if number is None and version is not None:
            return Reply(400, b"")
        describe = _metadata_text if match[4] == "metadata" else _status_text
        return Reply(200, describe(self._manager, name, number, label).encode())


def _decoded(match: re.Match[str]) -> tuple[str, str | None, str | None]:
    """Return model, version and label of a path; only names are percent-decoded, and only after the path was split."""
    name, version, label = match.group(1, 2, 3)
    return _unquoted(name or ""), version, label and _unquoted(label)


def _unquoted(name: str) -> str:
    return unquote_to_bytes(name).decode("utf-8", "replace") if "%" in name else name


def _error_reply(error: ServingError) -> Reply:
    return Reply(error.http_status, json_tensors.error_body(error.message).encode("utf-8", "surrogateescape"))


def _version_number(text: str | None) -> int | None:
    """Return the number, or None if it fits no version, or there is none."""
    if text is None or len(text) > len(str(_LARGEST_VERSION)) + 20:
        return None
    number = int(text)
    return number if number <= _LARGEST_VERSION else None


def _metadata_text(manager: Manager, name: str, version: int | None, label: str | None) -> str:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    _fill_spec(request.model_spec, name, version, label)
    response = model_metadata(manager, request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    return (
        f'{{\n"model_spec":{_message_text(response.model_spec)},\n'
        f'"metadata": {{"signature_def": {_message_text(signatures)}}}\n}}\n'
    )


def _status_text(manager: Manager, name: str, version: int | None, label: str | None) -> str:
    request = get_model_status_pb2.GetModelStatusRequest()
    _fill_spec(request.model_spec, name, version, label)
    return _message_text(model_status(manager, request))


def _fill_spec(spec: Any, name: str, version: int | None, label: str | None) -> None:  # noqa: ANN401 - a ModelSpec
    spec.name = name
    if version is not None:
        spec.version.value = version
    elif label is not None:
        spec.version_label = label


def _message_text(message: Any) -> str:  # noqa: ANN401 - any message
    text: str = json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=1
    )
    return text + "\n"


def _signature_name(body: dict[str, Any]) -> str:
    name = body.get(_SIGNATURE_KEY, "")
    if not isinstance(name, str):
        value = json_text.pretty(body)
        msg = f"JSON Value: {value} not formatted correctly. '{_SIGNATURE_KEY}' key must be a string value."
        raise invalid(msg)
    return name


def _predict(raw: bytes) -> _Answer:
    quick = json_text.parse_quickly(raw)
    body = quick if quick is not None and isinstance(quick.get(_SIGNATURE_KEY, ""), str) else json_text.parse(raw)
    signature_name = _signature_name(body)
    may_have_bools = b"true" in raw or b"false" in raw

    def answer(servable: Servable) -> str:
        known = signature_name or inference.DEFAULT_SIGNATURE
        signature = servable.signatures.get(known)
        if signature is None:
            msg = f'Serving signature name: "{known}" not found in signature def'
            raise invalid(msg)
        if not signature.inputs:
            msg = f"Failed to get input map for signature: {signature_name or 'DEFAULT'}"
            raise invalid(msg)
        found = None
        if body is quick:
            found = json_tensors.regular_inputs(body, signature.inputs, may_have_bools=may_have_bools)
        if found is None:
            found = json_tensors.request_inputs(json_text.parse(raw) if body is quick else body, signature.inputs)
        request_format, inputs = found
        return json_tensors.response_body(inference.predict(servable, known, inputs), request_format)

    return answer


def _classify(raw: bytes) -> _Answer:
    asked = _examples(raw)

    def answer(servable: Servable) -> str:
        result = inference.classify(servable, *asked)
        return json_tensors.classification_body(
            [[(one.label, one.score) for one in entry.classes] for entry in result.classifications]
        )

    return answer


def _regress(raw: bytes) -> _Answer:
    asked = _examples(raw)
    return lambda servable: json_tensors.regression_body(
        [one.value for one in inference.regress(servable, *asked).regressions]
    )


def _examples(raw: bytes) -> tuple[str, input_pb2.Input]:
    """Return the signature's name and the examples of a classify or regress body."""
    body = json_text.parse(raw)
    signature_name = _signature_name(body)
    target = input_pb2.Input()
    examples = target.example_list.examples
    if "context" in body:
        target.example_list_with_context.context.CopyFrom(example_from_json(body["context"]))
        examples = target.example_list_with_context.examples
    if "examples" not in body:
        value = json_text.pretty(body)
        msg = f"JSON Value: {value} When method is classify, key 'examples' is expected and was not found"
        raise invalid(msg)
    if not isinstance(body["examples"], list):
        msg = f"JSON Value: {json_text.pretty(body)} Expecting 'examples' value to be an list/array"
        raise invalid(msg)
    if not body["examples"]:
        msg = f"JSON Value: {json_text.pretty(body)} 'examples' value is an empty array"
        raise invalid(msg)
    for features in body["examples"]:
        examples.append(example_from_json(features))
    return signature_name, target


_READERS: dict[str, Callable[[bytes], _Answer]] = {"predict": _predict, "classify": _classify, "regress": _regress}
"""Verb → reader of its body. As in the real server a body is read, and refused, before the model is looked up."""
