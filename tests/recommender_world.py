"""A small made-up online world for the recommender's tests: snapshot, release, users in Redis, and a model.

Items fall into four tastes; item vectors of one taste point the same way. Users have rated items of one taste.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis
import uvicorn

from feature_repo.contracts.channels import channels
from feature_repo.contracts.embeddings import EMBEDDING_SIZE, ITEM2VEC
from feature_repo.contracts.intervals import feast_project, model_name
from feature_repo.contracts.manifests import (
    OnlineSnapshot,
    Part,
    Release,
    Similarity,
    catalogue_part,
    vectors_part,
    views_part,
)
from feature_repo.contracts.places import PARTITION_FILE, Namespace, Serving
from feature_repo.contracts.publishing import file_sha256, write_json
from feature_repo.contracts.schemas import MOVIELENS, write_schema
from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, ROWS_SIGNATURE, SIGNATURE_FILE, Scope
from serving.recommender.api import create_app
from serving.recommender.server import bind
from tests.blank_values import blank, completed
from tests.movielens import (
    FEATURE_GROUPS,
    FEATURES,
    ITEMS,
    RANKING,
    RANKING_FEATURES,
    USER_ACTIVITY,
    USER_HISTORY,
    USER_PROFILE,
    USER_SESSION,
    USERS,
)
from tests.redis_server import redis_executable
from tests.releases import ranker_part, release_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import feast

    from serving.recommender.settings import Settings

NAMESPACE = "tiny"
CUTOFF = "1998-04-23T00:00:00Z"
TASTES = 4
ITEM_COUNT = 240
GENRES = ("Drama", "Comedy", "Action", "Sci-Fi")
USERS_KNOWN = tuple(f"u{number}" for number in range(12))
DEADLINE_S = 20.0
_REPOSITORY = Path(__file__).resolve().parents[1]


def item_id(number: int) -> str:
    return f"{number:04d}"


def taste_of(number: int) -> int:
    return number % TASTES


def catalogue_table(items: int = ITEM_COUNT, prefix: str = "Film") -> pa.Table:
    """Items whose popularity falls with their number."""
    numbers = range(items)
    table = pa.table(
        {
            "item_id": [item_id(number) for number in numbers],
            "title": [f"{prefix} {number}" for number in numbers],
            "release_year": pa.array(
                [None if number % 17 == 0 else 1970 + number % 29 for number in numbers], pa.int64()
            ),
            "genres": pa.array([[GENRES[taste_of(number)]] for number in numbers], pa.list_(pa.string())),
            "item_event_count": pa.array([items - number for number in numbers], pa.int64()),
            "item_value_mean": pa.array([3.0 + number % 5 / 4 for number in numbers], pa.float32()),
            "item_value_std": pa.array([1.0] * items, pa.float32()),
            "item_release_year": pa.array(
                [None if number % 17 == 0 else 1970.0 + number % 29 for number in numbers], pa.float32()
            ),
            "item_genres": pa.array([[GENRES[taste_of(number)], "", ""] for number in numbers], pa.list_(pa.string())),
        }
    )
    for column in (*ITEMS.columns, *(column for group in FEATURES.items for column in group.features)):
        if column.name not in table.column_names:
            table = table.append_column(column.name, pa.array([blank(column)] * items))
    as_of = pa.scalar(datetime.fromisoformat(CUTOFF) - timedelta(microseconds=1), pa.timestamp("us", "UTC"))
    for group in FEATURES.items:
        if group.ttl_days:
            table = table.append_column(group.time_column.name, pa.repeat(as_of, items))
    return table


def vectors_table(items: int = ITEM_COUNT) -> pa.Table:
    """Unit vectors, near the axis of the item's taste."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(0, 0.05, (items, EMBEDDING_SIZE))
    vectors[np.arange(items), np.arange(items) % TASTES] += 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pa.table(
        {
            "item_id": [item_id(number) for number in range(items)],
            "embedding": pa.array(vectors.astype(np.float32).tolist(), pa.list_(pa.float32())),
        }
    )


def rated_items(user: str) -> list[str]:
    """What a user has rated: twenty items of one taste, spread over popular and rare ones."""
    number = USERS_KNOWN.index(user)
    return [item_id(taste_of(number) + TASTES * (number + 2 * step)) for step in range(20)]


def user_rows(user: str) -> dict[str, dict[str, Any]]:
    """Group name → features of a user."""
    number, rated = USERS_KNOWN.index(user), rated_items(user)
    rows: dict[str, dict[str, Any]] = {
        USER_ACTIVITY.name: {
            "user_last_items": rated[:8] + [""] * 2,
            "user_last_values": [5.0, 4.5, 2.0, 4.0, 1.0, 3.0, 3.5, 5.0, -1.0, -1.0],
            "user_event_count": len(rated),
            "user_value_mean": 3.0 + number / 10,
            "user_value_std": 0.5,
            "user_release_year_mean": 1990.5,
            "user_release_year_std": None,
            "user_top_genres": [GENRES[taste_of(number)], "", "", "", ""],
        },
        USER_SESSION.name: {"user_first_event_time": 893_000_000, "user_last_event_time": 893_221_200},
        USER_PROFILE.name: {
            "user_age": None if number % 3 == 0 else 20.0 + number,
            "user_gender": "F" if number % 2 else "",
            "user_occupation": "engineer",
        },
        USER_HISTORY.name: {"user_seen_items": sorted(rated)},
    }
    return {group.name: completed(rows.get(group.name, {}), group.features) for group in FEATURES.users}


def snapshot_views() -> dict[str, str]:
    return {group.name: group.view_name for group in FEATURE_GROUPS}


def _definition(kind: str) -> str:
    channel = channels(MOVIELENS).get(kind)
    return channel.definition if channel is not None else ""


@dataclass(frozen=True)
class World:
    """A state folder that the recommender can be pointed at."""

    state: Path

    @property
    def place(self) -> Namespace:
        return Namespace(self.state, NAMESPACE)

    @property
    def serving(self) -> Serving:
        return Serving(self.state)

    def publish_snapshot(
        self,
        catalogue: pa.Table | None = None,
        vectors: pa.Table | dict[str, pa.Table] | None = None,
        *,
        cutoff: str = CUTOFF,
        more: Sequence[Part] = (),
        size: int = 0,
        similarity: Similarity = Similarity.COSINE,
        towers: Mapping[str, str] | None = None,
        **changes: object,
    ) -> OnlineSnapshot:
        """Write a snapshot's files and move the pointer; `changes` replace fields of the manifest or of its parts.

        `vectors` are those of item2vec, or of each kind; `more` are parts beside or instead of the usual ones.
        `size`, `similarity` and `towers` are those of every kind of vectors.
        """
        table = catalogue_table() if catalogue is None else catalogue
        folder = cutoff.replace(":", "").replace("-", "")
        catalogue_path = self.place.online / folder / "catalogue.parquet"
        kinds = (
            vectors if isinstance(vectors, dict) else {ITEM2VEC.name: vectors_table() if vectors is None else vectors}
        )
        paths = {kind: self.place.embeddings / kind / f"{folder}.parquet" for kind in kinds}
        for path, content in ((catalogue_path, table), *((paths[kind], kinds[kind]) for kind in kinds)):
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(content, path)
        sums: Any = {kind: file_sha256(path) for kind, path in paths.items()}
        sums |= changes.pop("vectors_sha256", {})
        at = {kind: path.relative_to(self.place.root).as_posix() for kind, path in paths.items()}
        sha256: Any = changes.pop("catalogue_sha256", file_sha256(catalogue_path))
        views: Any = changes.pop("views", snapshot_views())
        parts = (
            catalogue_part(cutoff, catalogue_path.relative_to(self.place.root).as_posix(), sha256),
            views_part(cutoff, views),
            *(
                vectors_part(
                    kind, cutoff, at[kind], sums[kind], size or EMBEDDING_SIZE, similarity, towers, _definition(kind)
                )
                for kind in kinds
            ),
        )
        fields: dict[str, Any] = {
            "namespace": NAMESPACE,
            "schema": MOVIELENS.to_json(),
            "cutoff": cutoff,
            "feast_project": feast_project(NAMESPACE),
            "users": len(USERS_KNOWN),
            "items": len(table),
            "parts": {part.name: part for part in parts} | {part.name: part for part in more},
        }
        manifest = OnlineSnapshot(**(fields | changes))
        manifest.write(self.place.online_current)
        return manifest

    def publish_release(
        self,
        version: str = "1",
        *parts: Part,
        namespace: str = NAMESPACE,
        number: int = 1,
        previous: Release | None = None,
        **changes: object,
    ) -> Release:
        """Move the release pointer to a ranker and other `parts`; `changes` replace fields of the ranker.

        One whose inputs or views are changed is of before signatures were stored.
        """
        inputs = [column.name for column in RANKING.input_columns]
        given: dict[str, object] = {"views": RANKING_FEATURES.views, "inputs": inputs}
        if not changes.keys() & given.keys():
            given["signature"] = RANKING.to_json()
        ranker = ranker_part(version, **(given | changes))
        release = release_of(namespace, ranker, *parts, number=number, previous=previous, why="made up")
        release.write(self.serving.current_release(NAMESPACE))
        return release

    def write_users_file(self) -> None:
        path = self.place.dataset(USERS.name) / PARTITION_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"user_id": list(USERS_KNOWN)}), path)


def feature_store(world: World, redis_url: str) -> feast.FeatureStore:
    """Feast itself, as the data plane sets it up, with every view of the contracts applied."""
    from feature_repo.entities import ENTITIES
    from feature_repo.views import feast_views
    from pipelines.feast_store.store import open_store
    from pipelines.settings import Settings

    store = open_store(Settings(state=world.state, redis_url=redis_url), world.place)
    write_schema(world.place, MOVIELENS)
    store.apply([*ENTITIES.values(), *feast_views(world.place).values()])
    return store


def write_group(store: feast.FeatureStore, group: str, rows: Mapping[str, Mapping[str, Any]], at: datetime) -> None:
    """Write one group's features of some users to Redis through Feast. `rows`: user → feature → value."""
    import pandas as pd

    view = snapshot_views()[group]
    frame = pd.DataFrame([{"user_id": user, "event_time": at, **values} for user, values in rows.items()])
    store.write_to_online_store(view, df=frame, allow_registry_cache=False)


def write_users(store: feast.FeatureStore, users: Sequence[str] = USERS_KNOWN) -> None:
    at = {USER_PROFILE.name: datetime(1970, 1, 1, tzinfo=UTC)}
    for group in (group.name for group in FEATURES.users):
        rows = {user: user_rows(user)[group] for user in users}
        write_group(store, group, rows, at.get(group, datetime(1998, 4, 22, 5, tzinfo=UTC)))


def export_model(folder: Path, sign: float = 1.0) -> None:
    """Export a tiny SavedModel with both signatures of the contract.

    Its score rises with the item's mean and the share of the user's top genres that the item has, and falls with the
    distance between the user's mean and the item's, so that every user has another order; every day has other scores.
    """
    import tensorflow as tf

    dtypes = {"string": tf.string, "int64": tf.int64, "float32": tf.float32}

    def spec(name: str, rows: int | None) -> tf.TensorSpec:
        (column,) = (column for column in RANKING.input_columns if column.name == name)
        shape = [rows, column.length] if column.length else [rows]
        return tf.TensorSpec(shape, dtypes[column.dtype.value], name=name)

    names = [column.name for column in RANKING.input_columns]
    user_names = {column.name for column in RANKING.scoped(Scope.USER)}

    def scores(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        shared = tf.cast(inputs["item_genres"][:, :1] == inputs["user_top_genres"][:, :1], tf.float32)[:, 0]
        distance = tf.abs(inputs["item_value_mean"] - inputs["user_value_mean"])
        by_year = tf.math.sin(inputs["item_release_year"] * inputs["user_value_mean"])
        count = tf.math.log1p(tf.cast(inputs["item_event_count"], tf.float32))
        by_day = tf.cast(inputs["request_time"] // 86_400 % 5, tf.float32) / 10
        return {"score": tf.sigmoid(sign * (shared - distance + by_year + by_day + 0.1 * count))}

    module = tf.Module()

    def make(rows: int | None) -> Callable[..., Any]:
        signature = {name: spec(name, rows if name in user_names else None) for name in names}
        return tf.function(scores, input_signature=[signature])  # type: ignore[no-any-return] # it ships no types

    module.one_user, module.rows = make(1), make(None)
    signatures = {ONE_USER_SIGNATURE: module.one_user, ROWS_SIGNATURE: module.rows}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    write_json(folder / SIGNATURE_FILE, RANKING.to_json())


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            msg = f"{what}: not within {deadline_s:g} s"
            raise TimeoutError(msg)
        time.sleep(0.02)


class Service:
    """A process that can be started, stopped, frozen and started again at the same address."""

    def __init__(self, command: Sequence[str], ready: Callable[[], bool], environment: Mapping[str, str] | None = None):
        self._command = list(command)
        self._ready = ready
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, env=self._environment, cwd=_REPOSITORY, stdout=subprocess.DEVNULL
        )
        process = self._process

        def answers() -> bool:
            if process.poll() is not None:
                msg = f"{self._command} ended with {process.returncode}"
                raise RuntimeError(msg)
            return self._ready()

        wait_until(answers, f"{self._command} answers", 60)

    @property
    def pid(self) -> int:
        if self._process is None:
            msg = f"{self._command} does not run"
            raise RuntimeError(msg)
        return self._process.pid

    def send(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def terminate(self) -> int:
        """Ask it to stop, and return its exit status."""
        if self._process is None:
            return 0
        self._process.terminate()
        status = self._process.wait(DEADLINE_S)
        self._process = None
        return status

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        self.send(signal.SIGSTOP)
        # The signal is on its way until every thread has stopped: on a busy machine one may answer yet.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    @contextlib.contextmanager
    def running(self) -> Iterator[Service]:
        self.start()
        try:
            yield self
        finally:
            self.send(signal.SIGCONT)
            self.kill()


def redis_service(port: int, password: str, folder: Path) -> Service:
    """A redis-server that keeps what it held when it is terminated and started again."""
    folder.mkdir(parents=True, exist_ok=True)
    url = f"redis://:{password}@127.0.0.1:{port}/0"

    def ready() -> bool:
        with contextlib.suppress(redis.ConnectionError), contextlib.closing(redis.Redis.from_url(url)) as client:
            return bool(client.ping())
        return False

    options = ["--port", str(port), "--bind", "127.0.0.1", "--requirepass", password, "--dir", str(folder)]
    return Service([redis_executable(), *options, "--appendonly", "yes", "--save", ""], ready)


def write_models_config(world: World, versions: Sequence[int]) -> Path:
    """Write a models.config that serves the given versions of the ranking model."""
    name = model_name(NAMESPACE, RANKING.model)
    specific = " ".join(f"versions: {version}" for version in versions)
    world.serving.models_config.parent.mkdir(parents=True, exist_ok=True)
    world.serving.models_config.write_text(
        f'model_config_list {{ config {{ name: "{name}" base_path: "{world.serving.model(NAMESPACE, RANKING.model)}" '
        f'model_platform: "tensorflow" model_version_policy {{ specific {{ {specific} }} }} }} }}\n'
    )
    return world.serving.models_config


def settings_environment(world: World, **values: str) -> dict[str, str]:
    return {"KESTREL_STATE": str(world.state), "KESTREL_NAMESPACE": NAMESPACE} | {
        f"KESTREL_{name.upper()}": value for name, value in values.items()
    }


def recommender_service(environment: Mapping[str, str], port: int) -> Service:
    def ready() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    return Service([sys.executable, "-m", "serving.recommender"], ready, environment)


@contextlib.contextmanager
def recommender_in_thread(settings: Settings) -> Iterator[httpx.Client]:
    """The real service in this process, behind a real socket."""
    listener = bind("http://127.0.0.1:0")
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, "the recommender starts")
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=address, timeout=DEADLINE_S, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S)
        listener.close()


def corrupt(path: Path) -> None:
    write_json(path, {"not": "a record"})
