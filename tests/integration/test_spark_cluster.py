"""The jobs on a Spark cluster of several processes give what they give on local[*], unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.datasets import EVENTS
from pipelines.errors import JobError
from pipelines.io.lake import UNDIVIDED, stored_dataset
from pipelines.jobs import embeddings, features
from pipelines.settings import Settings, load_settings
from tests import feast_world as world
from tests.movielens import ITEMS, USERS
from tests.spark_cluster import spark_cluster

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.places import Namespace

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

LOOPBACK = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
SMALL = {"spark.executor.memory": "512m", "spark.executor.cores": "1", "spark.sql.shuffle.partitions": "3"}


def write_lake(state: Path) -> Namespace:
    """Write what ingestion would have."""
    events = world.make_events(users=20, items=15, events=250)
    place = world.write_world(state, events)
    users = [
        {"user_id": f"u{number}", "age": 20 + number, "gender": "F", "occupation": "writer"} for number in range(20)
    ]
    with stored_dataset(place, USERS).rewriting() as writer:
        writer.add(UNDIVIDED, pa.Table.from_pylist(users))
    for dataset in (EVENTS, ITEMS, USERS):
        assert stored_dataset(place, dataset).snapshot().rows
    return place


def results(settings: Settings, place: Namespace) -> Any:
    """Run the jobs that use Spark; return what is to be the same everywhere. Its walks run in executors' Python."""
    views = features.run(settings, place, world.CUTOFF, None)["views"]
    return views, embeddings.run(settings, place, world.CUTOFF)["embeddings"]


def test_two_workers_give_the_checksums_of_local_mode(tmp_path: Path) -> None:
    java = load_settings().java_home
    local = Settings(
        state=tmp_path / "local",
        java_home=java,
        spark_master="local[*]",
        spark_driver_memory="1g",
        embeddings="deepwalk",
    )
    expected = results(local, write_lake(local.state))
    assert expected[1]["deepwalk"]["items"] > 0
    place = write_lake(tmp_path / "shared")
    with spark_cluster(java, tmp_path / "cluster", workers=2) as cluster:
        options = {"spark_master": cluster.master, "spark_options": {**local.spark_options, **LOOPBACK, **SMALL}}
        received = results(local.model_copy(update={"state": tmp_path / "shared", **options}), place)
        assert len(cluster.executors()) == 4  # two for each job
    assert received == expected


def test_executors_with_a_file_system_of_their_own_are_found_out(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2, 3]}), tmp_path / "part-0.parquet")
    features.check_shared(tmp_path, 3)
    with pytest.raises(
        JobError, match=r"expected the 7 rows .* found 3; the state folder \(KESTREL_STATE\) must be one"
    ):
        features.check_shared(tmp_path, 7)
