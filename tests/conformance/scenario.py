"""Run one lifecycle scenario, step by step, against a server that this module starts.

A scenario is a JSON object: ``id``, ``doc``, ``section`` ("lifecycle" or "known_hazards"),
``flags``, ``config`` (``{ROOT}`` is the scenario's own model folder), ``layout`` (pairs of a
built version and where it is put before the start), ``ready`` (versions awaited at the start) and
``steps``. Each step has ``do``:

========================  =========================================================================
``fs``                    a file-system action, see :func:`file_system_action`
``write_config``          overwrite the configuration file with ``config``
``reload``                HandleReloadConfigRequest with ``config``; ``expected`` is the gRPC reply
``until``                 poll the status of ``model`` until it equals ``expected``, then watch it
                          for ``hold_s`` seconds: it must not change
``call``                  one request with the fields of a case
``traffic_start``         call ``request`` over gRPC without pause in the background
``traffic_stop``          end it; ``expected`` tells whether there were errors (0 or "some") and
                          which versions answered
``sleep``                 wait ``seconds``
========================  =========================================================================

In a status a version is ``[state, error code, message]``; the message is for the reader and is not
compared. Beside the recorded ``expected`` a step may have ``accept``, where more than the recorded
outcome is right, and, in known_hazards, ``required``: what a compatible server must do instead of
what was recorded. Patterns are allowed in both, see :func:`check_status`.
"""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from google.protobuf import json_format, text_format
from tensorflow_serving.apis import model_management_pb2, prediction_log_pb2

from tests.conformance.client import Client, Json, to_json
from tests.conformance.compare import differences
from tests.conformance.server_process import Launcher, Server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

POLL_S = 0.2
UNTIL_TIMEOUT_S = 40.0
RELOAD_TIMEOUT_S = 20.0
RELOAD_METHOD = {
    "service": "tensorflow.serving.ModelService",
    "method": "HandleReloadConfigRequest",
}
HAZARDS = "known_hazards"


@dataclass
class Stage:
    """What the steps of one running scenario share."""

    root: Path
    models: Path
    server: Server
    client: Client
    traffic: Traffic | None = None


@dataclass
class Traffic:
    """A thread that sends the same gRPC request again and again."""

    client: Client
    request: Mapping[str, Any]
    errors: list[str] = field(default_factory=list)
    versions: set[int] = field(default_factory=set)
    calls: int = 0
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start sending."""
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        while not self._end.is_set():
            reply = self.client.grpc(self.request)
            self.calls += 1
            if reply["code"] == "OK":
                self.versions.add(int(reply["response"]["model_spec"]["version"]))
            else:
                self.errors.append(f"{reply['code']}: {reply['details']}")
            time.sleep(0.002)

    def stop(self) -> Json:
        """Stop sending; return 0 or "some" errors, and the versions that answered."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(60)
        return {"errors": "some" if self.errors else 0, "versions": sorted(self.versions)}


def write_warmup(version: Path, warmup: Mapping[str, Any]) -> None:
    """Write ``assets.extra/tf_serving_warmup_requests`` into a version's folder.

    ``log`` is a PredictionLog in protobuf JSON, written ``copies`` times; with ``garbage`` the
    file holds bytes that are no TFRecord.
    """
    path = version / "assets.extra/tf_serving_warmup_requests"
    path.parent.mkdir(exist_ok=True)
    if "garbage" in warmup:
        path.write_text(warmup["garbage"], encoding="utf-8")
        return
    log = json_format.ParseDict(warmup["log"], prediction_log_pb2.PredictionLog())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(warmup.get("copies", 1)):
            writer.write(log.SerializeToString())


def file_system_action(stage: Stage, step: Mapping[str, Any]) -> None:
    """Do the action named by ``op``; paths are relative to the scenario's model folder.

    publish: copy a built version (``src``) aside, delete the files named in ``delete`` and add
    ``warmup`` to the copy, then rename it to ``dst`` in one go. copy: copy ``src`` straight to
    ``dst``. rename, remove, mkdir, write: what they say.
    """
    target = stage.root / step["dst"]
    match step["op"]:
        case "publish":
            publish(stage.root, stage.models / step["src"], target, step)
        case "copy":
            shutil.copytree(stage.models / step["src"], target)
        case "rename":
            (stage.root / step["src"]).rename(target)
        case "remove":
            shutil.rmtree(target)
        case "mkdir":
            target.mkdir(parents=True)
        case "write":
            target.write_text(step["text"], encoding="utf-8")
        case other:
            msg = f"unknown file-system action {other!r}"
            raise ValueError(msg)


def publish(root: Path, source: Path, target: Path, changes: Mapping[str, Any]) -> None:
    """Copy a version into a folder beside the models, change it, rename it into place."""
    staging = root.parent / "staging" / target.name
    shutil.copytree(source, staging)
    for name in changes.get("delete", ()):
        path = staging / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name in changes.get("truncate", ()):
        data = (staging / name).read_bytes()
        (staging / name).write_bytes(data[: len(data) // 2])
    if "warmup" in changes:
        write_warmup(staging, changes["warmup"])
    target.parent.mkdir(parents=True, exist_ok=True)
    staging.rename(target)


def reload_reply(stage: Stage, config: str) -> Json:
    """Send the configuration as HandleReloadConfigRequest; paths are masked in the reply."""
    request = text_format.Parse(
        f"config {{ {config.replace('{ROOT}', str(stage.root))} }}",
        model_management_pb2.ReloadConfigRequest(),
    )
    return masked(
        stage,
        stage.client.grpc({**RELOAD_METHOD, "request": to_json(request)}, RELOAD_TIMEOUT_S),
    )


def masked(stage: Stage, reply: Json) -> Json:
    """Replace the scenario's folder by ``{ROOT}`` in every text of a reply."""
    return {
        key: value.replace(str(stage.root), "{ROOT}") if isinstance(value, str) else value
        for key, value in reply.items()
    }


def check_status(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> bool:
    """Tell whether a model's status is the expected one; the messages are not compared.

    A state or an error code may be ``*`` (any), ``!OK`` (any but OK) or ``A|B`` (one of).
    """
    if expected["code"] != actual["code"]:
        return False
    want, got = expected.get("versions", {}), actual.get("versions", {})
    return want.keys() == got.keys() and all(
        _matches(pattern, value)
        for version in want
        for pattern, value in zip(want[version][:2], got[version][:2], strict=True)
    )


def _matches(pattern: str, value: str) -> bool:
    if pattern.startswith("!"):
        return value != pattern[1:]
    return pattern == "*" or value in pattern.split("|")


def _until(stage: Stage, step: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    deadline = time.monotonic() + step.get("timeout_s", UNTIL_TIMEOUT_S)
    while not check_status(expected, actual := stage.client.versions(step["model"])):
        if time.monotonic() > deadline:
            return [f"status: expected {expected}, got {actual} when the time was up"]
        time.sleep(POLL_S)
    held = time.monotonic() + step.get("hold_s", 0.0)
    while time.monotonic() < held:
        time.sleep(POLL_S)
        if not check_status(expected, actual := stage.client.versions(step["model"])):
            return [f"status: did not stay {expected}, became {actual}"]
    return []


def check_step(stage: Stage, step: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Carry out a step that has an outcome and compare the outcome."""
    rule = step.get("compare", "exact")
    unchecked = expected.get("code") == "*"
    match step["do"]:
        case "until":
            return [] if unchecked else _until(stage, step, expected)
        case "reload":
            reply = reload_reply(stage, step["config"])
            return [] if unchecked else differences("grpc", expected, reply, rule)
        case "call":
            reply = masked(stage, stage.client.send(step["kind"], step["request"]))
            return [] if unchecked else differences(step["kind"], expected, reply, rule)
        case "traffic_stop":
            return _stop_traffic(stage, expected)
        case other:
            msg = f"unknown step {other!r}"
            raise ValueError(msg)


def _stop_traffic(stage: Stage, expected: Mapping[str, Any]) -> list[str]:
    if stage.traffic is None:
        return ["traffic_stop without traffic_start"]
    actual = stage.traffic.stop()
    if actual == expected or expected.get("code") == "*":
        return []
    return [f"traffic: expected {expected}, got {actual}; {stage.traffic.errors[:3]}"]


def wanted(scenario: Mapping[str, Any], step: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the outcome that a step is checked against; ``{"code": "*"}`` is met by any.

    What the real server does in `known_hazards` is harmful: there only ``required`` is checked.
    """
    if scenario["section"] == HAZARDS:
        return step.get("required", {"code": "*"})
    return step.get("accept", step["expected"])


def act(stage: Stage, step: Mapping[str, Any]) -> bool:
    """Carry out a step that has no outcome; return False if the step is of the other sort."""
    match step["do"]:
        case "fs":
            file_system_action(stage, step)
        case "write_config":
            replacement = stage.server.config_file.with_suffix(".new")
            replacement.write_text(step["config"].replace("{ROOT}", str(stage.root)), encoding="utf-8")
            replacement.rename(stage.server.config_file)
        case "traffic_start":
            stage.traffic = Traffic(stage.client, step["request"])
            stage.traffic.start()
        case "sleep":
            time.sleep(step["seconds"])
        case _:
            return False
    return True


def run_scenario(scenario: Mapping[str, Any], launcher: Launcher, models: Path, work: Path) -> list[str]:
    """Start a server, take every step and return what went otherwise than expected."""
    root = work / "root"
    for source, destination in scenario["layout"]:
        publish(root, models / source, root / destination, {})
    server = Server(launcher, work, scenario["config"].replace("{ROOT}", str(root)), scenario.get("flags", ()))
    with server:
        stage = Stage(root, models, server, server.wait_ready(scenario["ready"]))
        try:
            for number, step in enumerate(scenario["steps"], 1):
                if act(stage, step):
                    continue
                found = check_step(stage, step, wanted(scenario, step))
                if found:
                    return [f"step {number} ({step['do']}): {line}" for line in found]
        finally:
            if stage.traffic is not None:
                stage.traffic.stop()
    return []
