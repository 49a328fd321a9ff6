"""What comes from outside and is wrong, too large, too slow or too much: an answer, and the server goes on serving."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from grpc import RpcError, StatusCode, insecure_channel
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.model_server.errors import ServingError
from serving.protocol.client import ModelClient, PredictClient
from serving.rollout.models_config import read_models_config, set_model, write_models_config
from tests.serving_world import ModelServer, states, wait_until
from tests.tiny_models import CLASSIFY, REGRESS, export_tiny, name_absent_tensor, use_unknown_operation, write_warmup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from serving.model_server.rest import RestApplication

MODEL, TARGET = "tiny", "/v1/models/tiny:predict"
MAX_BODY, TIMEOUT_S, CONNECTIONS = 1_000_000, 1.5, 1000
PREDICT = "tensorflow/serving/predict"
METRICS = "/monitoring/prometheus/metrics"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "1"
    export_tiny(folder)
    return folder


def started(folder: Path, tiny: Path, *flags: str) -> ModelServer:
    """Start a server of a copy of the tiny model in `folder`."""
    base_path = folder / MODEL
    shutil.copytree(tiny, base_path / "1")
    config_file = folder / "models.config"
    config = read_models_config(config_file)
    set_model(config, MODEL, base_path, [], {})
    config.model_config_list.config[0].ClearField("model_version_policy")
    write_models_config(config_file, config)
    server = ModelServer(folder, config_file, flags)
    server.start()
    wait_until(lambda: states(server, MODEL) == {1: "AVAILABLE"}, "the model")
    return server


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("served")
    monitoring = folder / "monitoring.config"
    monitoring.write_text(f'prometheus_config {{ enable: true path: "{METRICS}" }}')
    batching = folder / "batching.config"
    batching.write_text("max_batch_size { value: 64 } batch_timeout_micros { value: 20000 }")
    running = started(
        folder,
        tiny,
        f"--rest_api_max_body_bytes={MAX_BODY}",
        f"--rest_api_timeout_in_ms={TIMEOUT_S * 1e3:.0f}",
        f"--monitoring_config_file={monitoring}",
        "--enable_batching",
        f"--batching_parameters_file={batching}",
    )
    with ModelClient(running.address, timeout_s=10):
        yield running
    running.end()


def request(server: ModelServer, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    try:
        connection.request(method, target, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def assert_serves(server: ModelServer) -> None:
    status, answer = request(server, "POST", TARGET, '{"instances": [1.5]}')
    assert (status, json.loads(answer)) == (200, {"predictions": [3.0]})


def test_a_huge_body_is_answered_with_413_however_it_comes(server: ModelServer) -> None:
    with connected(server.rest_port) as client:
        client.sendall(b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n{" % TARGET.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413 "), "refused before it is sent"
    chunks = (b" " * 100_000 for _ in range(MAX_BODY // 100_000 + 1))
    status, answer = request(server, "POST", TARGET, chunks)
    assert status == 413
    assert "expected at most 1000000 bytes" in json.loads(answer)["error"]
    bomb = gzip.compress(b" " * (MAX_BODY + 1))
    assert request(server, "POST", TARGET, bomb, **{"Content-Encoding": "gzip"})[0] == 413
    for broken in (bomb[:50], b"no gzip"):
        status, answer = request(server, "POST", TARGET, broken, **{"Content-Encoding": "gzip"})
        assert status == 400
        assert "not valid gzip data" in json.loads(answer)["error"]
    assert_serves(server)


def test_slow_clients_hold_no_thread_and_are_cut_off(server: ModelServer) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: a\r\n" % TARGET.encode()
    clients = [connected(server.rest_port) for _ in range(40)]
    try:
        start = time.monotonic()
        for place, client in enumerate(clients):
            client.sendall(head if place % 2 else head + b'Content-Length: 20\r\n\r\n{"instances": ')
        assert_serves(server)
        assert time.monotonic() - start < TIMEOUT_S
        time.sleep(TIMEOUT_S / 2)
        for place, client in enumerate(clients):
            client.sendall(b"X" if place % 2 else b"[")
        for place, client in enumerate(clients):
            answer = b"".join(iter(lambda client=client: client.recv(1000), b""))
            assert answer.startswith(b"HTTP/1.1 408 ") if not place % 2 else answer == b"", "and then it is closed"
        assert time.monotonic() - start < 10 * TIMEOUT_S
    finally:
        for client in clients:
            client.close()
    assert_serves(server)


def test_a_thousand_idle_connections_on_either_side_are_no_matter(server: ModelServer) -> None:
    idle = [connected(port) for port in (server.rest_port, server.grpc_port) for _ in range(CONNECTIONS)]
    try:
        assert_serves(server)
        with PredictClient(server.address, timeout_s=10) as client:
            assert client.predict(MODEL, {"x": np.array([2], dtype=np.float32)})["y"].tolist() == [4.0]
    finally:
        for one in idle:
            one.close()
    assert_serves(server)


def test_concurrent_requests_of_both_sides_are_merged_and_counted(server: ModelServer) -> None:
    def over_rest(number: int) -> Any:
        return json.loads(request(server, "POST", TARGET, json.dumps({"instances": [number]}))[1])["predictions"][0]

    def over_grpc(number: int) -> Any:
        with PredictClient(server.address, timeout_s=10) as client:
            return client.predict(MODEL, {"x": np.array([number], dtype=np.float32)})["y"].tolist()[0]

    before = counted(server)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(over_rest if number % 2 else over_grpc, number) for number in range(48)]
        assert [call.result() for call in calls] == [2.0 * number for number in range(48)]
    now = counted(server)
    runs = now[":tensorflow:serving:batching_session:wrapped_run_count{}"] - before.get(
        ":tensorflow:serving:batching_session:wrapped_run_count{}", 0
    )
    assert runs < 40, "48 requests need fewer runs"
    ok = f':tensorflow:serving:request_count{{model_name="{MODEL}",status="OK"}}'
    assert now[ok] - before.get(ok, 0) == 48
    for api, entry in (("Predict", "GRPC"), ("predict", "REST")):
        name = f':tensorflow:serving:request_latency_count{{model_name="{MODEL}",API="{api}",entrypoint="{entry}"}}'
        assert now[name] - before.get(name, 0) == 24


def counted(server: ModelServer) -> dict[str, float]:
    """Read the page: series → value."""
    lines = request(server, "GET", METRICS)[1].splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_requests_in_flight_are_answered_before_the_server_ends(tiny: Path, tmp_path: Path) -> None:
    server = started(tmp_path, tiny)
    body = json.dumps({"signature_name": "slow", "instances": [1.0]})

    def over_grpc() -> Any:
        with PredictClient(server.address, timeout_s=60) as client:
            return client.predict(MODEL, {"x": np.array([1], dtype=np.float32)}, signature_name="slow")["y"].tolist()

    with ThreadPoolExecutor(2) as pool:
        rest, grpc = pool.submit(request, server, "POST", TARGET, body), pool.submit(over_grpc)
        time.sleep(0.5)
        assert not rest.done()
        assert not grpc.done()
        assert server.end(signal.SIGTERM) == 0
        assert rest.result()[0] == 200
        assert grpc.result() == [1.0]


def _truncated(folder: Path) -> None:
    file = folder / "saved_model.pb"
    os.truncate(file, file.stat().st_size // 2)


def _without_variables(folder: Path) -> None:
    shutil.rmtree(folder / "variables")


def _short_variables(folder: Path) -> None:
    (data,) = (folder / "variables").glob("variables.data*")
    os.truncate(data, 1)


def _bad_warmup(folder: Path) -> None:
    write_warmup(folder, prediction_log("predict", signature="absent"))


BREAKAGES: tuple[Callable[[Path], None], ...] = (
    use_unknown_operation,
    name_absent_tensor,
    _truncated,
    _without_variables,
    _short_variables,
    _bad_warmup,
)


def test_a_broken_version_is_reported_and_the_good_one_stays(tiny: Path, tmp_path: Path) -> None:
    server = started(tmp_path, tiny)
    try:
        for version, damage in enumerate(BREAKAGES, 2):
            staging = tmp_path / f".{version}"
            shutil.copytree(tiny, staging)
            damage(staging)
            staging.rename(tmp_path / MODEL / str(version))
            wait_until(
                lambda version=version: states(server, MODEL).get(version) == "END", f"{damage.__name__} to fail"
            )
            assert states(server, MODEL)[1] == "AVAILABLE"
            assert_serves(server)
        with ModelClient(server.address, timeout_s=10) as client:
            messages = {one.version: one.error_message for one in client.model_status(MODEL)}
        assert "KestrelUnknownOperation" in messages[2]
        assert "expected a tensor of the graph for y, received absent:0" in messages[3]
    finally:
        assert server.end() == 0


def prediction_log(kind: str, signature: str = "") -> Any:
    """Make a warm-up record."""
    from tensorflow.core.framework import tensor_pb2
    from tensorflow_serving.apis import input_pb2, prediction_log_pb2

    examples = input_pb2.Input()
    examples.example_list.examples.add().features.feature["x"].float_list.value.append(1.0)
    log = prediction_log_pb2.PredictionLog()
    match kind:
        case "predict":
            spec = log.predict_log.request.model_spec
            tensor = tensor_pb2.TensorProto(dtype=1, float_val=[1.0])
            tensor.tensor_shape.dim.add(size=1)
            log.predict_log.request.inputs["x"].CopyFrom(tensor)
        case "classify" | "regress":
            part = getattr(log, f"{kind}_log").request
            part.input.CopyFrom(examples)
            spec = part.model_spec
        case "multi":
            log.multi_inference_log.request.input.CopyFrom(examples)
            task = log.multi_inference_log.request.tasks.add(method_name="tensorflow/serving/regress")
            spec = task.model_spec
        case _:
            spec = log.session_run_log.request.model_spec
    spec.name, spec.signature_name = MODEL, signature
    return log


@pytest.mark.parametrize(
    ("tasks", "code", "details"),
    [
        (
            [(MODEL, "regress", REGRESS), (MODEL, "regress", REGRESS)],
            StatusCode.INVALID_ARGUMENT,
            "Duplicate evaluation of signature: regress",
        ),
        (
            [(MODEL, "", PREDICT), (MODEL, "serving_default", PREDICT)],
            StatusCode.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            [(MODEL, "regress", REGRESS), (MODEL, "regress", CLASSIFY)],
            StatusCode.INVALID_ARGUMENT,
            "Duplicate evaluation of signature: regress",
        ),
        (
            [(MODEL, "regress", REGRESS), (MODEL, "nope", CLASSIFY), ("other", "classify", CLASSIFY)],
            StatusCode.INVALID_ARGUMENT,
            "Requested signature not found in model graph: nope",
        ),
        (
            [(MODEL, "regress", REGRESS), ("other", "regress", REGRESS)],
            StatusCode.INVALID_ARGUMENT,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [(MODEL, "regress", REGRESS), ("", "classify", CLASSIFY)],
            StatusCode.INVALID_ARGUMENT,
            "Found ModelSpec with an empty model name.",
        ),
        (
            [("", "regress", REGRESS), (MODEL, "classify", CLASSIFY)],
            StatusCode.INVALID_ARGUMENT,
            "ModelSpec has no name specified.",
        ),
        (
            [("other", "regress", REGRESS), (MODEL, "classify", CLASSIFY)],
            StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(other)",
        ),
        (
            [(MODEL, "regress", REGRESS), (MODEL, "regress_more", REGRESS)],
            StatusCode.INVALID_ARGUMENT,
            "Input tensor must be the same for all Signatures.",
        ),
        ([], StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified."),
    ],
)
def test_tasks_that_do_not_go_together_are_refused(
    server: ModelServer, tasks: list[tuple[str, str, str]], code: StatusCode, details: str
) -> None:
    with pytest.raises(RpcError) as caught:
        infer(server, tasks, [4.0])
    assert (caught.value.code(), caught.value.details()) == (code, details)


def test_tasks_are_looked_at_before_the_examples(server: ModelServer) -> None:
    for tasks, details in (
        ([(MODEL, "regress", REGRESS)], "Input is empty."),
        ([(MODEL, "regress", REGRESS)] * 2, "Duplicate evaluation of signature: regress"),
    ):
        with pytest.raises(RpcError) as caught:
            infer(server, tasks, [])
        assert caught.value.details() == details


def test_the_tasks_of_a_request_are_one_run_and_its_examples_count_once(server: ModelServer) -> None:
    before = counted(server)
    response = infer(server, [(MODEL, "regress", REGRESS), (MODEL, "classify", CLASSIFY)], [4.0, 5.0])
    regression, classification = response.results
    assert [one.value for one in regression.regression_result.regressions] == [8.0, 10.0]
    assert [
        [(one.label, one.score) for one in entry.classes]
        for entry in classification.classification_result.classifications
    ] == [[("label", 8.0)], [("label", 10.0)]]
    assert [(one.model_spec.name, one.model_spec.version.value) for one in response.results] == [(MODEL, 1)] * 2
    assert [one.model_spec.signature_name for one in response.results] == ["regress", "classify"]
    now = counted(server)
    for name, grown in (
        (f':tensorflow:serving:request_example_count_total{{model="{MODEL}"}}', 2),
        (f':tensorflow:serving:request_example_counts_count{{model="{MODEL}"}}', 1),
        (":tensorflow:core:direct_session_runs{}", 1),
    ):
        assert now[name] - before.get(name, 0) == grown, name


def infer(server: ModelServer, tasks: list[tuple[str, str, str]], values: list[float]) -> Any:
    """Send a MultiInference request: tasks of model, signature and method on examples of one float each."""
    from tensorflow_serving.apis import inference_pb2, prediction_service_pb2_grpc

    request = inference_pb2.MultiInferenceRequest()
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = model, signature
    for value in values:
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(value)
    with insecure_channel(server.address) as channel:
        return prediction_service_pb2_grpc.PredictionServiceStub(channel).MultiInference(request, timeout=10)


def test_every_answer_has_its_date_and_a_load_its_stages(server: ModelServer) -> None:
    for target in (METRICS, "/v1/models/tiny", "/nowhere"):
        connection = HTTPConnection("127.0.0.1", server.rest_port, timeout=10)
        connection.request("GET", target)
        reply = connection.getresponse()
        reply.read()
        connection.close()
        sent = parsedate_to_datetime(reply.headers["Date"])
        assert abs((datetime.now(UTC) - sent).total_seconds()) < 60
    stages = {
        name.partition('stage="')[2].partition('"')[0]
        for name in counted(server)
        if name.startswith(":tensorflow:cc:saved_model:load_latency_by_stage_count{")
    }
    assert stages == {"restore_graph", "init_graph"}


@pytest.mark.parametrize(
    ("kind", "signature"),
    [("predict", ""), ("classify", "classify"), ("regress", "regress"), ("multi", "regress"), ("session", "")],
)
def test_every_kind_of_warmup_record_is_replayed_but_session_runs(
    tiny: Path, tmp_path: Path, kind: str, signature: str
) -> None:
    from serving.model_server import metrics
    from serving.model_server.servable import Loading, Servable, session_options
    from serving.model_server.warmup import warm_up

    folder = tmp_path / "1"
    shutil.copytree(tiny, folder)
    write_warmup(folder, prediction_log(kind, signature), prediction_log(kind, signature))
    servable = Servable(MODEL, 1, folder, Loading(session_options(1, 1)))
    try:
        before = metrics.SESSION_RUNS.value()
        if kind == "session":
            with pytest.raises(ServingError, match="Unsupported log_type for warmup: session_run_log") as caught:
                warm_up(servable, folder)
            assert caught.value.code is StatusCode.UNIMPLEMENTED
        else:
            assert warm_up(servable, folder, iterations=3) == 2
            assert metrics.SESSION_RUNS.value() - before == 6
            assert metrics.WARMUP_RECORDS.value((str(folder),)) == 2
    finally:
        servable.close()


# Fuzzing: whatever the body, the answer is JSON in the protocol's words


@pytest.fixture(scope="module")
def application(tiny: Path) -> Iterator[RestApplication]:
    from serving.model_server.manager import LoadOptions, Manager
    from serving.model_server.model_config import single_model
    from serving.model_server.rest import RestApplication
    from serving.model_server.servable import Loading, session_options

    manager = Manager(LoadOptions(Loading(session_options(1, 1)), 0, 0.0, 1, labels_for_unavailable=True))
    manager.start(single_model(MODEL, str(tiny.parent)))
    wait_until(lambda: manager.status(MODEL)[0].state == 30, "the model")
    yield RestApplication(manager, ThreadPoolExecutor(1), max_body_bytes=MAX_BODY)
    manager.close()


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just({"b64": "AA=="})
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "other", "b64"]) | st.text(), inner)
    ),
    max_leaves=12,
)
_names = st.sampled_from(["serving_default", "two", "sum", "positive", "classify", "regress", ""]) | _values
_bodies = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": _names,
        "instances": _values,
        "inputs": _values,
        "examples": _values,
        "context": _values,
    },
).map(lambda body: json.dumps(body).encode("utf-8", "surrogatepass"))


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    """Return a body with some bytes replaced, or cut off."""
    body = bytearray(draw(_bodies))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(body) - 1))
        body[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
        body = body or bytearray(b" ")
    return bytes(body)


@settings(deadline=None, max_examples=300)
@given(
    st.binary() | _bodies | _damaged() | st.integers(1, 100_000).map(lambda depth: b'{"instances":' + b"[" * depth),
    st.sampled_from(["predict", "classify", "regress"]),
)
def test_any_body_has_an_answer_in_the_protocols_words(application: RestApplication, body: bytes, verb: str) -> None:
    reply = application.answer("POST", f"/v1/models/{MODEL}:{verb}".encode(), body)
    assert reply.status in {200, 400, 501}, reply.body
    answer = json.loads(reply.body.decode("utf-8", "replace"), strict=False)
    assert answer.keys() <= ({"error"} if reply.status != 200 else {"predictions", "outputs", "results"})


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(["GET", "POST", "PUT", "OPTIONS"]), st.binary().map(lambda tail: b"/v1/models/" + tail))
def test_any_path_has_an_answer(application: RestApplication, method: str, target: bytes) -> None:
    assert application.answer(method, target, b"{}").status in {400, 404}


@pytest.mark.parametrize(
    ("verb", "body", "refused"),
    [
        (
            "predict",
            '{"instances": [1',
            "JSON Parse error: Missing a comma or ']' after an array element. at offset: 16",
        ),
        ("predict", '"x"', 'JSON Value: "x" Is not object'),
        ("predict", '{"signature_name": 1}', "not formatted correctly. 'signature_name' key must be a string value."),
        ("predict", '{"signature_name": "nope", "inputs": 1, "instances": "x"}', None),
        ("predict", "{}", None),
        ("predict", '{"instances": ["x"]}', None),
        ("classify", "", "JSON Parse error: The document is empty"),
        ("classify", "{}", "key 'examples' is expected and was not found"),
        ("classify", '{"examples": [{"x": null}]}', "Feature: x has element with unexpected JSON type: Null"),
        ("classify", '{"signature_name": "nope", "examples": [{}]}', None),
        ("regress", '{"examples": {}}', "Expecting 'examples' value to be an list/array"),
        ("regress", '{"context": 1, "examples": [{}]}', "Example must be JSON object but got JSON Number"),
        ("regress", '{"examples": [{"x": {"b64": "?"}}]}', "Unable to base64 decode"),
        ("regress", '{"examples": [{}]}', None),
    ],
)
def test_a_body_is_refused_before_the_model_is_looked_up(
    application: RestApplication, verb: str, body: str, refused: str | None
) -> None:
    for model, not_found in (
        ("absent", (404, "Servable not found for request: Latest(absent)")),
        ("tiny/versions/7", (404, "Servable not found for request: Specific(tiny, 7)")),
        ("tiny/labels/none", (400, "Unrecognized servable version label: none")),
    ):
        status, words = not_found if refused is None else (400, refused)
        reply = application.answer("POST", f"/v1/models/{model}:{verb}".encode(), body.encode())
        assert reply.status == status
        assert words in json.loads(reply.body)["error"]


def test_a_long_body_is_quoted_in_part(application: RestApplication) -> None:
    body = json.dumps({"instances": list(range(300)), "inputs": [1]})
    reply = application.answer("POST", TARGET.encode(), body.encode())
    quoted = ", ".join(map(str, range(62)))
    assert json.loads(reply.body)["error"] == (
        f"JSON Value: {{\n    \"instances\": [{quoted} Not formatted correctly expecting only one of 'inputs' or "
        "'instances' keys to exist "
    )


@pytest.mark.parametrize(
    ("method", "target", "status", "words"),
    [
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/versions/1", 400, "Missing model name in request."),
        ("GET", "/v1/models/metadata", 404, "Could not find any versions of model metadata"),
        ("GET", "/v1/models/tiny/versions/\u0661", 400, "Malformed request: GET /v1/models/tiny/versions/\u0661"),
        ("POST", "/v1/models/a%2Fb:predict", 404, "Servable not found for request: Latest(a/b)"),
        ("POST", "/v1/models/tiny%3Apredict", 400, "Malformed request: POST /v1/models/tiny%3Apredict"),
    ],
)
def test_paths_are_split_before_they_are_decoded(
    application: RestApplication, method: str, target: str, status: int, words: str
) -> None:
    reply = application.answer(method, target.encode(), b'{"instances": [1]}')
    assert (reply.status, json.loads(reply.body)["error"]) == (status, words)
