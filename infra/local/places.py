"""Where the engines of one machine keep their files in the state folder. What the planes share is in the contracts."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

_LONGEST_SOCKET_PATH = 100
"""Linux allows 107 bytes; supervisor adds a process id while it binds."""


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of one stack."""

    state: Path

    @property
    def logs(self) -> Path:
        """One log per part, and the supervisor's."""
        return self.state / "logs"

    @property
    def run(self) -> Path:
        """What is true only while the stack runs."""
        return self.state / "run"

    @property
    def sources(self) -> Path:
        """Downloaded data sets."""
        return self.state / "sources"

    @property
    def tools(self) -> Path:
        """Downloaded tools."""
        return self.state / "tools"

    @property
    def java(self) -> Path:
        """The Java home that stands in where the machine has no Java."""
        return self.state / "java"

    @property
    def java_archives(self) -> Path:
        """Where Java keeps what it has learned of Spark's classes; it may be removed at any time."""
        return self.tools / "java-archives"

    @property
    def redis(self) -> Path:
        """Redis's append-only file."""
        return self.state / "redis"

    @property
    def mlflow(self) -> Path:
        """MLflow's database and artifacts."""
        return self.state / "mlflow"

    @property
    def airflow(self) -> Path:
        """Airflow's home: database, task logs, secrets."""
        return self.state / "airflow"

    @property
    def supervisor_config(self) -> Path:
        """Rendered from the settings at every `make up`."""
        return self.run / "supervisord.conf"

    @property
    def supervisor_pid(self) -> Path:
        """Written by supervisord."""
        return self.run / "supervisord.pid"

    @property
    def wanted(self) -> Path:
        """The parts that were asked for."""
        return self.run / "wanted.json"

    @property
    def groups(self) -> Path:
        """Process groups that were started, as a second means of finding them."""
        return self.run / "groups.json"

    @property
    def lock(self) -> Path:
        """Held while the stack is being started or stopped."""
        return self.run / "stack.lock"

    @property
    def demo_lock(self) -> Path:
        """Held by `make demo` while it runs."""
        return self.run / "demo.lock"

    @property
    def socket(self) -> Path:
        """Supervisor's control socket: in the state folder, or in a short private one where that path is too long."""
        path = self.run / "supervisor.sock"
        if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
            return path
        digest = hashlib.sha256(os.fsencode(self.state)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"kestrel-{os.getuid()}-{digest}" / "supervisor.sock"

    def log(self, part: str) -> Path:
        """The log of one part."""
        return self.logs / f"{part}.log"
