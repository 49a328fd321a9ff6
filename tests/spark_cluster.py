"""A real Spark cluster of several processes on this machine: `with spark_cluster(java, folder, workers=2): ...`."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyspark

from serving.protocol.free_ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEADLINE_S = 120.0
_SPARK_CLASS = Path(pyspark.__file__).parent / "bin" / "spark-class"
_MASTER, _WORKER = "org.apache.spark.deploy.master.Master", "org.apache.spark.deploy.worker.Worker"


@dataclass(frozen=True)
class Cluster:
    """Where a cluster's master listens, and what its processes have said."""

    master: str
    logs: Path

    def executors(self) -> set[str]:
        """Return the executors that the workers have started: `<application>/<number>`."""
        said = "".join(log.read_text() for log in self.logs.glob("worker-*.log"))
        return set(re.findall(r"Asked to launch executor (\S+)", said))


@contextlib.contextmanager
def spark_cluster(java_home: Path | None, folder: Path, workers: int) -> Iterator[Cluster]:
    """Run a standalone master and `workers` workers of one core each, all on loopback; nothing of it is left."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_WORKER_DIR": str(folder / "work")}
    environment |= {"SPARK_PUBLIC_DNS": "127.0.0.1", "SPARK_LOCAL_DIRS": str(folder / "local")}
    if java_home is not None:
        environment["JAVA_HOME"] = str(java_home)
    address = f"spark://127.0.0.1:{port}"
    web = ["--webui-port", "0", "--host", "127.0.0.1"]
    with contextlib.ExitStack() as stack:

        def start(name: str, *arguments: str) -> Path:
            log = folder / f"{name}.log"
            with log.open("w") as stream:
                process = subprocess.Popen(
                    [str(_SPARK_CLASS), *arguments], env=environment, stdout=stream, stderr=subprocess.STDOUT
                )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return log

        master = start("master", _MASTER, "--port", str(port), *web)
        _wait_for(master, "Starting Spark master at")
        options = ["--cores", "1", "--memory", "1g", *web, address]
        logs = [start(f"worker-{number}", _WORKER, *options) for number in range(workers)]
        for log in logs:
            _wait_for(log, "Successfully registered with master")
        yield Cluster(address, folder)


def _wait_for(log: Path, line: str) -> None:
    end = time.monotonic() + _DEADLINE_S
    while line not in log.read_text():
        if time.monotonic() > end:
            msg = f"{log}: expected {line!r} within {_DEADLINE_S:.0f} s, received {log.read_text()[-2000:]}"
            raise TimeoutError(msg)
        time.sleep(0.05)
