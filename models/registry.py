"""The model plane's part of the registry: it registers versions and sets `candidate`. The rollout moves the rest."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from models.errors import TrackingRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import mlflow
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)
CANDIDATE_ALIAS = "candidate"
DECISION, REASON = "kestrel.decision", "kestrel.reason"
_TAG_LENGTH = 4_900
"""A little under what MLflow's database holds in one tag."""


def register(
    client: mlflow.MlflowClient,
    name: str,
    model_id: str,
    run_id: str,
    *,
    tags: Mapping[str, str],
    served: Mapping[int, str],
) -> str:
    """Register the run's logged model once, and tag it; return the version. A second call finds the first's version.

    Args:
        client: Of the MLflow server.
        name: The registered model, which is made if there is none.
        model_id: The logged model.
        run_id: Its run.
        tags: Of the version.
        served: Version → run of what is served or was: no other model may have its number (docs/decisions/0100).

    Raises:
        TrackingRefusedError: The registry counts no further.
    """
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = [
        version
        for version in client.search_model_versions(f"name = '{name}'")
        if version.run_id == run_id and served.get(int(version.version), run_id) in {"", run_id}
    ]
    if known:
        version = min(known, key=lambda each: int(each.version))
    else:
        version = _new_version(client, name, model_id, run_id, above=max(served, default=0))
    for tag, value in tags.items():
        client.set_model_version_tag(name, version.version, tag, value[:_TAG_LENGTH])
    return str(version.version)


def _new_version(client: mlflow.MlflowClient, name: str, model_id: str, run_id: str, *, above: int) -> ModelVersion:
    """Register a version whose number is above all that were served.

    MLflow counts from 1 again after a registered model was deleted, and on from versions that were deleted one by one.
    """
    source = client.get_logged_model(model_id).artifact_location
    for _ in range(above + 1):
        version = client.create_model_version(name, source, run_id=run_id, model_id=model_id)
        if int(version.version) > above:
            return version
        log.warning(
            "%s version %s is passed over: %d was served, but versions count anew", name, version.version, above
        )
        client.delete_model_version(name, version.version)
    msg = (
        f"{name}: expected a version above {above}, received {version.version}; does MLflow give deleted numbers again?"
    )
    raise TrackingRefusedError(msg)


def describe(client: mlflow.MlflowClient, name: str, version: str, description: str) -> None:
    """Show a description, in Markdown, on the version's page, and let `candidate` name this version."""
    client.update_model_version(name, version, description=description)
    client.set_registered_model_alias(name, CANDIDATE_ALIAS, version)
