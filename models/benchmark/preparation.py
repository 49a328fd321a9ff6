"""Any data that the data plane takes → its training set: events, features and labels, strictly as of each moment.

The jobs of the data plane run by their command lines, in a state folder of the benchmark's own. What is unchanged is
not computed again.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dotenv import dotenv_values

from feature_repo.contracts.places import MANIFEST, Namespace, settings_file, state_folder
from feature_repo.contracts.planes import run_plane
from feature_repo.contracts.publishing import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)
WORK = "benchmarks"
"""The state folder of benchmarks, inside that of the stack."""
_PREPARED = "prepared.json"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data in a lake, with its features."""

    place: Namespace
    cutoff: str
    """The midnight after the last event."""
    environment: Mapping[str, str]
    """What jobs see that work on it."""

    def run(self, *arguments: str, **settings: str) -> dict[str, Any]:
        """Run a job on this namespace, with some settings of its own; see `run_plane`."""
        given = {f"KESTREL_{name.upper()}": value for name, value in settings.items()}
        return _run({**self.environment, **given}, *arguments, "--namespace", self.place.name)

    def training_set(self, cutoff: str = "") -> Path:
        """Return the training set of all events before a cutoff; the whole data set's where none is given.

        It has the users' last events, which models of histories read.
        """
        until = ("--cutoff", cutoff or self.cutoff)
        self.run("pipelines", "embeddings", *until)  # a training set names the vectors of its cutoff
        made = self.run("pipelines", "training-set", *until, ranking_sequences="true")
        return self.place.training_sets / str(made["training_set"])


def prepare(data: Path, mapping: str = "", state: Path | None = None) -> Prepared:
    """Bring data into a lake and compute its features.

    Args:
        data: What `python -m pipelines ingest` takes: a folder, archive or file.
        mapping: What it means, where it has no published layout: a YAML file, or one that comes with the project.
        state: The state folder to work in; default: WORK in the stack's own.

    Raises:
        JobFailedError: The data plane refuses the data, or cannot work.
    """
    own = state_folder(os.environ)
    state = state or own / WORK
    state.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in dotenv_values(settings_file(own)).items() if value is not None}
    environment = {**settings, **os.environ, "KESTREL_STATE": str(state)}
    meaning = str(Path(mapping).absolute()) if Path(mapping).is_file() else mapping  # jobs run in the repository
    source = ("--source", str(data.absolute()), *(("--mapping", meaning) if mapping else ()))
    name = str(_run(environment, "pipelines", "describe", *source)["namespace"])
    place = Namespace(state, name)
    ingested = _run(environment, "pipelines", "ingest", "--namespace", name, *source)
    prepared = Prepared(place, str(ingested["cutoff"]), environment)
    mark: dict[str, object] = {"checksum": ingested["checksum"], "cutoff": prepared.cutoff}
    done = place.root / _PREPARED
    if not done.exists() or read_json(done) != mark:
        prepared.run("pipelines", "features", "--cutoff", prepared.cutoff)
        prepared.run("pipelines", "registry")
        write_json(done, mark)
    return prepared


def training_set_of(data: Path, mapping: str = "") -> Path:
    """Return `data` where it is a training set already, else the one that is made of it."""
    return data if (data / MANIFEST).is_file() else prepare(data, mapping).training_set()


def _run(environment: Mapping[str, str], *arguments: str) -> dict[str, Any]:
    began = time.monotonic()
    result = run_plane(arguments, environment)
    log.info("%s: %.0f s", " ".join(arguments[:2]), time.monotonic() - began)
    return result
