"""The model plane's part of the registry: it registers versions and sets `candidate`. The rollout moves the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from collections.abc import Mapping

    import mlflow

CANDIDATE_ALIAS = "candidate"
DECISION, REASON = "kestrel.decision", "kestrel.reason"
_TAG_LENGTH = 4_900
"""A little under what MLflow's database holds in one tag."""


def register(client: mlflow.MlflowClient, name: str, model_id: str, run_id: str, tags: Mapping[str, str]) -> str:
    """Register the run's logged model once, and tag it; return the version. A second call finds the first's version."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = [version for version in client.search_model_versions(f"name = '{name}'") if version.run_id == run_id]
    if known:
        version = min(known, key=lambda each: int(each.version))
    else:
        source = client.get_logged_model(model_id).artifact_location
        version = client.create_model_version(name, source, run_id=run_id, model_id=model_id)
    for tag, value in tags.items():
        client.set_model_version_tag(name, version.version, tag, value[:_TAG_LENGTH])
    return str(version.version)


def describe(client: mlflow.MlflowClient, name: str, version: str, reason: str) -> None:
    """Show the reason on the version's page, and let `candidate` name this version."""
    client.update_model_version(name, version, description=reason)
    client.set_registered_model_alias(name, CANDIDATE_ALIAS, version)
