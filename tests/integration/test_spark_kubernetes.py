"""The recipe of docs/scale.md for Spark on Kubernetes, with processes in the place of pods."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from feature_repo.contracts.places import REPOSITORY
from pipelines.io.spark import spark_session
from pipelines.settings import Settings, load_settings
from tests.kubernetes_api import kubernetes_api

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

HERE = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1", "spark.executor.instances": "1"}
HERE |= {"spark.driver.memory": "512m", "spark.executor.memory": "512m"}
HERE |= {"spark.kubernetes.executor.enableApiWatcher": "false", "spark.kubernetes.executor.apiPollingInterval": "1s"}
HERE |= {"spark.scheduler.minRegisteredResourcesRatio": "0"}


def recipe() -> dict[str, str]:
    text = (REPOSITORY / "docs" / "scale.md").read_text()
    (options,) = re.findall(r"^KESTREL_SPARK_MASTER=k8s://.+\nKESTREL_SPARK_OPTIONS=(.+)$", text, flags=re.MULTILINE)
    found: dict[str, str] = json.loads(options)
    return found


def modules(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Say, from an executor's Python, what it finds of this project."""
    from pipelines.embeddings import walk_sequences

    for batch in batches:
        yield pa.record_batch({"name": [walk_sequences.__name__] * batch.num_rows})


@pytest.fixture(autouse=True)
def no_session_before() -> None:
    """End what other tests of this process left running: a session that is there is taken, whatever its master."""
    session = SparkSession.getActiveSession()
    if session is not None:
        session.stop()


def test_executors_start_in_pods_and_run_the_projects_python(tmp_path: Path) -> None:
    options, ours = recipe(), load_settings()
    with kubernetes_api(tmp_path / "pods") as api:
        settings = Settings(
            state=tmp_path,
            java_home=ours.java_home,
            spark_master=f"k8s://{api.url}",
            spark_options={**ours.spark_options, **options, **HERE},
        )
        with spark_session(settings, "pods") as spark:
            rows = spark.range(40).repartition(2).mapInArrow(modules, "name string").distinct().collect()
        assert [row["name"] for row in rows] == ["pipelines.embeddings.walk_sequences"]
        (pod,) = api.created
        assert api.pods == {}
    assert pod["metadata"]["namespace"] == options["spark.kubernetes.namespace"]
    (container,) = pod["spec"]["containers"]
    assert container["image"] == options["spark.kubernetes.container.image"]
    assert [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "state"] == [
        "/var/lib/kestrel"
    ]
