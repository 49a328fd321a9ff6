"""Where things lie in the state folder. Paths are derived from names here and nowhere else.

- `settings.env`: every setting, port and password
- `sources/`: downloads
- `mlflow/`, `airflow/`, `redis/`, `run/`, `logs/`: the engines' own
- `data/<namespace>/`: see `Namespace`
- `serving/`: see `Serving`
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.contracts.intervals import check_namespace, model_name
from feature_repo.contracts.jobs import JobError
from feature_repo.contracts.signatures import RANKING_MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFEST = "manifest.json"
CURRENT = "current.json"
PART = "part.json"
"""Beside a file that is a part of a release: the Part."""
DATASET_MANIFEST = "_manifest.json"
"""Beside a dataset's partitions: {"partitions": {name: {"rows": n, "sha256": canonical checksum}}}. Written last."""
PARTITION_FILE = "part-0.parquet"
REPORT = "report.html"
_UNSPEAKABLE = re.compile(r"[\\\x00-\x1f\x7f\ud800-\udfff]")
"""DuckDB reads a backslash as a slash, settings and logs are lines, and bytes that are no UTF-8 are no text at all."""


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the state folder, absolute: KESTREL_STATE, else `.kestrel`; a relative one starts at the repository.

    JobError for a name that an engine cannot be told.
    """
    state = (REPOSITORY / Path(environ.get("KESTREL_STATE") or ".kestrel").expanduser()).resolve()
    if _UNSPEAKABLE.search(str(state)):
        msg = (
            f"KESTREL_STATE: expected a folder whose path is text without backslashes and control characters, received "
            f"{str(state)!r}; rename it, or name another one"
        )
        raise JobError(msg)
    return state


def settings_file(state: Path) -> Path:
    """Return where a state folder keeps its settings."""
    return state / "settings.env"


def cutoff_name(cutoff: datetime) -> str:
    """Return a cutoff as a file name: `19980423T000000Z`."""
    return cutoff.strftime("%Y%m%dT%H%M%SZ")


@dataclass(frozen=True, slots=True)
class Namespace:
    """The folder of one data set."""

    state: Path
    name: str

    def __post_init__(self) -> None:
        """Refuse a name that could leave the folder."""
        check_namespace(self.name)

    @property
    def root(self) -> Path:
        """The folder that everything below lies in."""
        return self.state / "data" / self.name

    def dataset(self, name: str) -> Path:
        """A dataset of the lake: `event_date=YYYY-MM-DD/part-0.parquet`, or `part-0.parquet` where undivided."""
        return self.root / "lake" / name

    def feature_table(self, view_name: str) -> Path:
        """A feature view's table: `event_date=YYYY-MM-DD/part-0.parquet`, or `part-0.parquet` for static and latest."""
        return self.root / "features" / view_name

    @property
    def statistics(self) -> Path:
        """The daily statistics tables: `<table>/event_date=YYYY-MM-DD/part-0.parquet`."""
        return self.root / "statistics"

    @property
    def reports(self) -> Path:
        """`<kind>/<name>/report.html`: written once, never changed, and read by whoever may look at the pipeline."""
        return self.root / "reports"

    @property
    def schema(self) -> Path:
        """The data set's schema, as its last ingestion had it."""
        return self.root / "schema.json"

    @property
    def reading(self) -> Path:
        """What decided how the last ingestion read its source's rows: a part is read in the same way, or refused."""
        return self.root / "reading.json"

    @property
    def landing(self) -> Path:
        """Files of events that came by the stream and are not in the lake yet; each is there whole or not at all."""
        return self.root / "landing"

    @property
    def embeddings(self) -> Path:
        """Dated snapshots, `<kind>/<cutoff>-<sha>.parquet`: written once, never changed; `reports/<cutoff>.html`."""
        return self.root / "embeddings"

    @property
    def channels(self) -> Path:
        """Dated tables of fitted channels, `<name>/<cutoff>-<sha>.parquet`; `<cutoff>.json` is the part that one is."""
        return self.root / "channels"

    @property
    def feast(self) -> Path:
        """The Feast registry of the namespace."""
        return self.root / "feast"

    @property
    def training_sets(self) -> Path:
        """`<training_set_id>/`: written once."""
        return self.root / "training_sets"

    @property
    def questions(self) -> Path:
        """`<questions_id>/`: written once; `contracts.questions` says what is in it."""
        return self.root / "questions"

    @property
    def recalled(self) -> Path:
        """`<candidates_id>/`: written once; `contracts.candidates` says what is in it."""
        return self.root / "recalled"

    @property
    def candidates(self) -> Path:
        """`<run key>/`: the working folder of one training run, from training to verdict."""
        return self.root / "candidates"

    @property
    def online(self) -> Path:
        """`<snapshot>/` and `current.json`, the OnlineSnapshot in force."""
        return self.root / "online"

    @property
    def online_current(self) -> Path:
        """The OnlineSnapshot in force."""
        return self.online / CURRENT

    @property
    def locks(self) -> Path:
        """Lock files: one job at a time per namespace and dataset."""
        return self.root / "locks"


@dataclass(frozen=True, slots=True)
class Serving:
    """What model server, rollout and recommender share."""

    state: Path

    @property
    def root(self) -> Path:
        """The folder that everything below lies in."""
        return self.state / "serving"

    @property
    def models_config(self) -> Path:
        """The model server's configuration: promoted versions only, so that a restart never serves anything else."""
        return self.root / "models.config"

    def model(self, namespace: str, part: str) -> Path:
        """A served model's base path: `<version>/` SavedModels."""
        return self.root / "models" / model_name(namespace, part)

    def file_part(self, namespace: str, part: str) -> Path:
        """The versions of a part that is a file: `<version>/`, each with the file and `part.json`."""
        return self.root / "parts" / model_name(namespace, part)

    def releases(self, namespace: str) -> Path:
        """`v<number>.json`, each a Release, and `current.json`, a copy of the one in force."""
        return self._own("releases", namespace)

    def rollouts(self, namespace: str) -> Path:
        """What a namespace's rollout means to do, and has done."""
        return self._own("rollouts", namespace)

    def _own(self, folder: str, namespace: str) -> Path:
        """A namespace's folder in `folder`; one of before there were parts stays under the name of its ranker."""
        earlier = self.root / folder / model_name(namespace, RANKING_MODEL)
        return earlier if earlier.is_dir() else self.root / folder / namespace

    def current_release(self, namespace: str) -> Path:
        """The Release in force."""
        return self.releases(namespace) / CURRENT

    def canary_release(self, namespace: str, part: str) -> Path:
        """The Release in force with the version of `part` that is compared with its own; there while it is."""
        return self.releases(namespace) / ("canary.json" if part == RANKING_MODEL else f"canary-{part}.json")

    def request_samples(self, namespace: str, part: str) -> Path:
        """`*.tfrecord`, each a sample of the ranking requests that one recommender sent in one period."""
        return self.root / "request_samples" / model_name(namespace, part)

    def shadows(self, namespace: str, part: str) -> Path:
        """`v<version>/*.json`, each what one recommender saw of a canary (`contracts.manifests.ShadowSummary`)."""
        return self.root / "shadows" / model_name(namespace, part)
