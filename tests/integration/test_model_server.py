"""The real server process: no configuration yet, reloads good and bad, both protocols, and its end."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, ROWS_SIGNATURE
from serving.protocol.client import ModelClient
from serving.protocol.errors import CallError
from serving.protocol.messages import ModelServerConfig
from serving.rollout.models_config import read_models_config, set_model, write_models_config
from tests.serving_world import (
    REPOSITORY,
    ModelServer,
    export_ranking,
    ranking_inputs,
    ranking_scores,
    score,
    states,
    wait_until,
    write_golden,
)

if TYPE_CHECKING:
    from pathlib import Path

MODEL, BIAS = "tiny.ranking", 0.5


@pytest.fixture(scope="module")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / MODEL
    export_ranking(path / "1", BIAS)
    return path


def post(server: ModelServer, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    try:
        connection.request("POST", path, json.dumps(body))
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def test_a_server_without_configuration_is_up_and_takes_the_first_model(base_path: Path, tmp_path: Path) -> None:
    config_file = tmp_path / "models.config"
    with ModelServer(tmp_path, config_file) as server, ModelClient(server.address, timeout_s=60) as client:
        assert client.model_status(MODEL) == ()
        config = read_models_config(config_file)
        set_model(config, MODEL, base_path, [1], {})
        client.reload_config(config)
        assert states(server, MODEL) == {1: "AVAILABLE"}

        for name in (ROWS_SIGNATURE, ONE_USER_SIGNATURE):
            inputs = ranking_inputs(6, name)
            expected = ranking_scores(inputs, BIAS)
            np.testing.assert_allclose(score(server, MODEL, inputs, signature_name=name), expected, atol=1e-6)
            columns = {column: values.tolist() for column, values in inputs.items()}
            status, answer = post(server, f"/v1/models/{MODEL}:predict", {"signature_name": name, "inputs": columns})
            assert status == 200, answer
            np.testing.assert_allclose(answer["outputs"], expected, atol=1e-6)

        one_row = {column: values.tolist()[0] for column, values in ranking_inputs(1).items()}
        rows = [one_row] * 3
        times = []
        for _ in range(20):
            start = time.perf_counter()
            assert post(server, f"/v1/models/{MODEL}:predict", {"instances": rows})[0] == 200
            times.append(time.perf_counter() - start)
        assert statistics.median(times) < 0.035, "no answer may wait for a delayed acknowledgement (40 ms)"

        for bad in (_nameless(base_path), _absent(base_path, tmp_path), ModelServerConfig()):
            with pytest.raises(CallError):
                client.reload_config(bad)
            assert states(server, MODEL) == {1: "AVAILABLE"}
        client.reload_config(config)

        write_models_config(config_file, _labelled(config, base_path))
        server.end(signal.SIGKILL)
        server.start()
        wait_until(lambda: states(server, MODEL) == {1: "AVAILABLE"}, "the configured version after a restart")
        inputs = ranking_inputs(2)
        np.testing.assert_allclose(
            score(server, MODEL, inputs, label="stable"), ranking_scores(inputs, BIAS), atol=1e-6
        )
        assert server.end() == 0


def _nameless(base_path: Path) -> Any:
    config = ModelServerConfig()
    config.model_config_list.config.add(base_path=str(base_path), model_platform="tensorflow")
    return config


def _absent(base_path: Path, tmp_path: Path) -> Any:
    config = ModelServerConfig()
    set_model(config, MODEL, base_path, [1], {})
    set_model(config, "absent.ranking", tmp_path / "absent", [1], {})
    return config


def _labelled(config: Any, base_path: Path) -> Any:
    set_model(config, MODEL, base_path, [1], {"stable": 1})
    return config


def test_a_check_reports_agreement_and_leaves_no_process_even_if_killed(base_path: Path, tmp_path: Path) -> None:
    write_golden(tmp_path / "golden.json", BIAS)
    command = [
        *(sys.executable, "-m", "serving.model_server", "check"),
        *("--saved-model", str(base_path / "1"), "--golden", str(tmp_path / "golden.json")),
        *("--out", str(tmp_path / "check.json")),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=REPOSITORY, timeout=200)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "check.json").read_text())
    assert report["requests"] == 3
    assert report["max_abs_difference"] < 1e-6
    assert report["grpc"].keys() == report["rest"].keys() == {"p50_ms", "p99_ms"}
    assert report["load_per_core"] >= 0

    checking = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPOSITORY)
    try:
        parent = psutil.Process(checking.pid)
        wait_until(lambda: bool(parent.children()), "the private server to start", seconds=60)
        (child,) = parent.children()
    finally:
        checking.kill()
        checking.wait()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the private server's end")
