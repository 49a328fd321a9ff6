"""What tests of the serving plane share: a tiny SavedModel of the contract, a real server, a filled registry."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from feature_repo.contracts.columns import Dtype
from feature_repo.contracts.intervals import model_name
from feature_repo.contracts.list_policy import POLICY_ARTIFACTS
from feature_repo.contracts.manifests import Decision, TrainingKind, TrainingSet, Verdict
from feature_repo.contracts.publishing import tree_sha256, write_json
from feature_repo.contracts.schemas import MOVIELENS
from feature_repo.contracts.served_models import CHAMPION_RUN_TAG, CHAMPION_VERSION_TAG
from feature_repo.contracts.signatures import (
    ONE_USER_SIGNATURE,
    ROWS_SIGNATURE,
    SIGNATURE_ARTIFACT,
    SIGNATURE_FILE,
    Scope,
)
from serving.protocol.client import ModelClient, PredictClient
from serving.protocol.errors import CallError
from serving.protocol.free_ports import free_ports
from tests.movielens import RANKING, RANKING_FEATURES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from feature_repo.contracts.list_policy import ListPolicy
    from feature_repo.contracts.signatures import Signature

REPOSITORY = Path(__file__).resolve().parents[1]
START_SECONDS = 120.0
_NUMPY = {Dtype.STRING: object, Dtype.INT64: np.int64, Dtype.FLOAT32: np.float32}


def export_ranking(folder: Path, bias: float, dtype_of_count: str = "int64") -> None:
    """Export a SavedModel with both of the contract's signatures: score = sigmoid(item mean - user mean + bias).

    It holds a variable, as every trained model does. `dtype_of_count` breaks the contract if it is another.
    """
    import tensorflow as tf

    users = {column.name for column in RANKING.scoped(Scope.USER)}

    def spec(name: str, length: int, dtype: str, rows: int | None) -> Any:
        return tf.TensorSpec([rows, length] if length else [rows], getattr(tf, dtype), name=name)

    class Ranking(tf.Module):  # type: ignore[misc] # TensorFlow ships no types
        def __init__(self) -> None:
            super().__init__()
            self.bias = tf.Variable(bias, dtype=tf.float32)

    module = Ranking()

    def score(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"score": tf.sigmoid(inputs["item_value_mean"] - inputs["user_value_mean"] + module.bias)}

    def function(rows: int | None) -> Any:
        specs = {
            column.name: spec(
                column.name,
                column.length,
                dtype_of_count if column.name == "user_event_count" else column.dtype.value,
                rows if column.name in users else None,
            )
            for column in RANKING.input_columns
        }
        return tf.function(score, input_signature=[specs])

    signatures = {ROWS_SIGNATURE: function(None), ONE_USER_SIGNATURE: function(1)}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    write_json(folder / SIGNATURE_FILE, RANKING.to_json())


def ranking_inputs(rows: int, signature_name: str = ROWS_SIGNATURE, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Make inputs of `rows` candidates; users have one row in `one_user`."""
    generator = np.random.default_rng(seed)
    users = {column.name for column in RANKING.scoped(Scope.USER)}
    inputs: dict[str, NDArray[Any]] = {}
    for column in RANKING.input_columns:
        count = 1 if signature_name == ONE_USER_SIGNATURE and column.name in users else rows
        shape = (count, column.length) if column.length else (count,)
        values = generator.integers(1, 6, shape)
        inputs[column.name] = (
            values.astype(str).astype(object) if column.dtype is Dtype.STRING else values.astype(_NUMPY[column.dtype])
        )
    return inputs


def ranking_scores(inputs: Mapping[str, NDArray[Any]], bias: float) -> NDArray[Any]:
    """Compute what `export_ranking` computes, without TensorFlow."""
    logits = inputs["item_value_mean"] - inputs["user_value_mean"] + np.float32(bias)
    scores: NDArray[Any] = (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
    return scores


def write_golden(path: Path, bias: float) -> None:
    """Write golden requests for a model with that bias: both signatures, several sizes."""
    requests = []
    for seed, (rows, name) in enumerate(((1, ROWS_SIGNATURE), (20, ROWS_SIGNATURE), (7, ONE_USER_SIGNATURE))):
        inputs = ranking_inputs(rows, name, seed)
        requests.append(
            {
                "signature_name": name,
                "inputs": {column: values.tolist() for column, values in inputs.items()},
                "score": ranking_scores(inputs, bias).tolist(),
            }
        )
    write_json(path, {"requests": requests})


class ModelServer:
    """The real server as a process of its own; a context manager. It can be killed and started again."""

    def __init__(self, folder: Path, config: Path, flags: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = config
        self.grpc_port, self.rest_port = free_ports(2)
        self.log = folder / "model-server.log"
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}"

    def start(self) -> None:
        command = [
            *(sys.executable, "-m", "serving.model_server"),
            f"--port={self.grpc_port}",
            f"--rest_api_port={self.rest_port}",
            f"--model_config_file={self.config}",
            "--file_system_poll_wait_seconds=0.2",
            "--max_num_load_retries=0",
            *self._flags,
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=REPOSITORY)
        deadline = time.monotonic() + START_SECONDS
        with ModelClient(self.address, timeout_s=1) as client:
            while time.monotonic() < deadline and self._process.poll() is None:
                with contextlib.suppress(CallError):
                    client.model_status("nobody")
                    return
                time.sleep(0.05)
        msg = f"the model server did not start: {self.log.read_text(errors='replace')[-2000:]}"
        raise TimeoutError(msg)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        status = self._process.wait(60)
        self._process = None
        return status

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            msg = f"waited {seconds:g} s for: {what}"
            raise TimeoutError(msg)
        time.sleep(0.05)


def states(server: ModelServer, model: str) -> dict[int, str]:
    with ModelClient(server.address, timeout_s=10) as client:
        return {status.version: status.state for status in client.model_status(model)}


def score(server: ModelServer, model: str, inputs: Mapping[str, Any], **choice: Any) -> NDArray[Any]:
    with PredictClient(server.address, timeout_s=20) as client:
        return client.predict(model, inputs, **choice)["score"]


def training_set(namespace: str) -> TrainingSet:
    return TrainingSet(
        kind=TrainingKind.RANKING,
        training_set_id="ts-0001",
        namespace=namespace,
        schema=MOVIELENS.to_json(),
        cutoff="1998-04-23T00:00:00Z",
        train_end="1998-03-01T00:00:00Z",
        valid_end="1998-04-01T00:00:00Z",
        label_min_value=4.0,
        prior_mean=3.5,
        refresh_hours=24,
        feature_service=RANKING_FEATURES.name,
        feature_service_hash=RANKING_FEATURES.hash,
        views=RANKING_FEATURES.views,
        feature_hashes=RANKING_FEATURES.feature_hashes,
        rows={"train": 10},
        checksums={},
        sources={},
        item_embeddings="embeddings/item2vec/19980423T000000Z-00000000.parquet",
        item_embeddings_sha256="0" * 64,
    )


def register(
    uri: str,
    folder: Path,
    namespace: str,
    saved_model: Path,
    golden: Path,
    *,
    decision: Decision = Decision.PROMOTE,
    reason: str = "every gate passed",
    sha256: str | None = None,
    champion: tuple[str, str] | None = None,
    part: str = RANKING.model,
    signature: Signature = RANKING,
    more_tags: Mapping[str, str] | None = None,
    policy: ListPolicy | None = None,
) -> int:
    """Log a run with the artifacts that a rollout reads, register its model and return the version.

    `champion` is version and run of what the gates compared it with; without, it is as if gated before that was noted.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    name = model_name(namespace, part)
    experiment = client.get_experiment_by_name(namespace)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(namespace)
    run = client.create_run(experiment_id)
    run_id = run.info.run_id
    work = folder / f"run-{run_id}"
    training_set(namespace).write(work / "training_set.json")
    write_json(work / SIGNATURE_ARTIFACT, signature.to_json())
    shutil.copyfile(golden, work / "golden.json")
    verdict = Verdict(namespace, part, "0", run_id, decision, reason, "", [])
    verdict.write(work / "gates" / "verdict.json")
    for each, content in (policy.record() if policy is not None else {}).items():
        write_json(work / POLICY_ARTIFACTS / f"{each}.json", content)
    client.log_artifacts(run_id, str(work))
    client.log_artifacts(run_id, str(saved_model), "model/saved_model")
    client.set_terminated(run_id)
    with contextlib.suppress(Exception):
        client.create_registered_model(name)
    version = client.create_model_version(name, f"{run.info.artifact_uri}/model", run_id)
    tags = {
        "kestrel.decision": decision.value,
        "kestrel.reason": reason,
        "kestrel.saved_model_sha256": sha256 or tree_sha256(saved_model),
        **(more_tags or {}),
    }
    if champion is not None:
        tags |= dict(zip((CHAMPION_VERSION_TAG, CHAMPION_RUN_TAG), champion, strict=True))
    for key, value in tags.items():
        client.set_model_version_tag(name, version.version, key, value)
    return int(version.version)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended."""

    code: int
    result: dict[str, Any]
    errors: str


def run_job(arguments: Sequence[str], environment: Mapping[str, str]) -> Outcome:
    """Run a job as Airflow does, by its command line."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | dict(environment),
        timeout=240,
    )
    lines = done.stdout.strip().splitlines()
    return Outcome(done.returncode, json.loads(lines[-1]) if lines and done.returncode == 0 else {}, done.stderr)
