"""As much of Kubernetes' API as Spark's driver asks for; a pod is a process here, started as its image would be.

`with kubernetes_api(folder) as api: ...`. Pods run on this machine whatever their image is:
`infra/docker/entrypoint.py` with the pod's arguments and environment, its own address being that of loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_REPOSITORY = Path(__file__).parents[1]
_ADDRESS = "127.0.0.1"
_PODS = re.compile(r"/api/v1/namespaces/([\w-]+)/pods(?:/([\w-]+))?")
_CONFIG_MAPS = re.compile(r"/api/v1/namespaces/([\w-]+)/configmaps")
_OWN_FIELDS = {"status.podIP": lambda _: _ADDRESS, "metadata.name": lambda pod: pod["metadata"]["name"]}


@dataclass
class Api:
    """The pods that were asked for."""

    folder: Path
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def create(self, pod: dict[str, Any], namespace: str) -> dict[str, Any]:
        """Start a pod."""
        with self.lock:
            name = pod["metadata"]["name"]
            pod["metadata"] |= {
                "namespace": namespace,
                "uid": name,
                "resourceVersion": "1",
                "creationTimestamp": "2026-01-01T00:00:00Z",
            }
            pod["status"] = {"phase": "Running", "podIP": _ADDRESS}
            self.pods[name] = pod
            self.created.append(pod)
            self.processes[name] = self._start(pod)
            return pod

    def listed(self) -> dict[str, Any]:
        """Return the pods that there are."""
        with self.lock:
            items = list(self.pods.values())
        return {"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": items}

    def delete_all(self) -> None:
        """Take all pods down."""
        with self.lock:
            for name in list(self.pods):
                self.pods.pop(name)
                process = self.processes.pop(name)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _start(self, pod: dict[str, Any]) -> subprocess.Popen[bytes]:
        (container,) = pod["spec"]["containers"]
        given = {}
        for variable in container["env"]:
            source = variable.get("valueFrom")
            own = _OWN_FIELDS[source["fieldRef"]["fieldPath"]](pod) if source else variable.get("value", "")
            given[variable["name"]] = own
        environment = {name: os.environ[name] for name in ("PATH", "JAVA_HOME", "HOME") if name in os.environ}
        with (self.folder / f"{pod['metadata']['name']}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "infra.docker.entrypoint", *container["args"]],
                cwd=_REPOSITORY,
                env=environment | given | {"SPARK_LOCAL_DIRS": str(self.folder)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


class _Handler(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        return body

    def do_POST(self) -> None:
        body = self._body()
        pods = _PODS.match(self.path)
        if pods:
            self._answer(201, self.api.create(body, pods[1]))
        elif _CONFIG_MAPS.match(self.path):
            self._answer(201, body)
        else:
            self._unknown()

    def do_GET(self) -> None:
        found = _PODS.match(self.path)
        if found is None:
            self._unknown()
        elif found[2] is None:
            self._answer(200, self.api.listed())
        elif found[2] in self.api.pods:
            self._answer(200, self.api.pods[found[2]])
        else:
            self._unknown()

    def do_PATCH(self) -> None:
        self._body()
        found = _PODS.match(self.path)
        if found and found[2] in self.api.pods:
            self._answer(200, self.api.pods[found[2]])
        else:
            self._unknown()

    def do_DELETE(self) -> None:
        self._body()
        if _PODS.match(self.path):
            self.api.delete_all()
        self._answer(200, {"apiVersion": "v1", "kind": "Status", "status": "Success"})

    def _unknown(self) -> None:
        said = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
        self._answer(404, said)


@contextlib.contextmanager
def kubernetes_api(folder: Path) -> Iterator[Api]:
    """Serve the API on loopback; no pod is left afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    api = Api(folder)
    server = ThreadingHTTPServer((_ADDRESS, 0), type("Handler", (_Handler,), {"api": api}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    api.url = f"http://{_ADDRESS}:{server.server_port}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        api.delete_all()
