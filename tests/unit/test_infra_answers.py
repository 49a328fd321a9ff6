"""The health check of containers, against a real HTTP server."""

from __future__ import annotations

import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from infra.docker.answers import ailment, main
from tests import infra_manifests as manifests

PAGES = {
    "/well": (200, b"{}"),
    "/away": (503, b"{}"),
    "/monitor": (200, b'{"scheduler": {"status": "healthy"}, "dag_processor": {"status": null}, "triggerer": null}'),
    "/text": (200, b"well"),
    "/list": (200, b"[]"),
    "/monitoring/prometheus/metrics": (200, b""),
}


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = PAGES[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def uri():
    with HTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "component", "wrong"),
    [
        ("/well", "", None),
        ("/monitor", "scheduler", None),
        ("/away", "", "503"),
        ("/monitor", "dag_processor", "it is None"),
        ("/monitor", "triggerer", "it is None"),
        ("/monitor", "nobody", "it is None"),
        ("/text", "scheduler", "Expecting value"),
        ("/list", "scheduler", "no attribute"),
    ],
)
def test_ailment(uri, path, component, wrong):
    said = ailment(f"{uri}{path}", component)
    assert said is None if wrong is None else wrong in (said or "")


def test_command(uri, capsys):
    assert main([f"{uri}/well"]) == 0
    assert main([f"{uri}/away"]) == 1
    assert "503" in capsys.readouterr().err
    assert main(["http://127.0.0.1:1/"]) == 1
    assert main([]) == 2


def test_the_model_servers_health_check_needs_nothing_but_bash(uri):
    """The command of compose.yaml itself, for an image without an HTTP client."""
    kind, *command = manifests.compose()["services"]["tensorflow-serving"]["healthcheck"]["test"]
    assert (kind, command[0]) == ("CMD", "bash")
    port = uri.rpartition(":")[2]

    def status(script):
        environment = {"PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            ["/bin/bash", "-c", script], env=environment, capture_output=True, timeout=20, check=False
        )
        return done.returncode

    script = command[2].replace("/8501", f"/{port}")
    assert status(script) == 0
    assert status(script.replace("/monitoring/prometheus/metrics", "/away")) != 0
    assert status(command[2].replace("/8501", "/1")) != 0
