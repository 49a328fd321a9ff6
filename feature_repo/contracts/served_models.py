"""What those who make models, serve them and answer with them have to agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import Release
from feature_repo.contracts.publishing import CorruptRecordError, tree_sha256

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.places import Serving

VERSION_MAX = 2**31 - 1
"""The largest number of a version: the registry's database gives it 32 bits."""
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
"""Inside a version's folder; read by the model server before the version is AVAILABLE. The rollout adds it."""
CHAMPION_VERSION_TAG, CHAMPION_RUN_TAG = "kestrel.champion_version", "kestrel.champion_run_id"
"""Of a registered version: the champion that its verdict was made beside; empty texts where there was none."""
RANKING_DEADLINE_MS = 300
"""How long a recommender waits for scores, unless KESTREL_RECOMMENDER_RANKING_MS says something else."""


def served_sha256(folder: Path, expected: str) -> str:
    """Return the checksum of a served SavedModel as it was registered: without the warm-up file that was added to it.

    One that brought a warm-up file of its own was registered with it: with the file it has the `expected` checksum.
    """
    received = tree_sha256(folder, without=(WARMUP_FILE,))
    if received != expected and (folder / WARMUP_FILE).is_file():
        return tree_sha256(folder)
    return received


def served_versions(serving: Serving, namespace: str, model: str) -> dict[int, str]:
    """Return version → run of all that the serving plane has a folder or a release of; no run where none is known.

    The registry gives these numbers anew after the registered model was deleted, but here they are taken.
    """
    folder, releases = serving.model(namespace, model), serving.releases(namespace)
    found = {int(path.name): "" for path in folder.glob("*") if path.name.isascii() and path.name.isdigit()}
    latest = (serving.canary_release(namespace, model), serving.current_release(namespace))
    for path in (*sorted(releases.glob("v*.json"), key=_number), *latest):
        try:
            release = Release.read(path)
        except (FileNotFoundError, CorruptRecordError):
            continue
        if model in release.parts:
            found[int(release.parts[model].version)] = release.parts[model].run_id
    return found


def _number(path: Path) -> tuple[int, str]:
    """Order `v2.json` before `v10.json`."""
    return len(path.name), path.name
