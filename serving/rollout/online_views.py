"""Whether a recommender could rank with a release: it reads feature views, and the online snapshot has to have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import OnlineSnapshot
from feature_repo.contracts.places import Namespace
from serving.rollout.errors import AbsentViewsError

if TYPE_CHECKING:
    from feature_repo.contracts.manifests import Release
    from serving.rollout.serving_model import ServingModel


def online_snapshot(model: ServingModel) -> OnlineSnapshot | None:
    """Return the snapshot that recommenders answer from, None before the first.

    Raises:
        CorruptRecordError: Its record is damaged.
    """
    try:
        return OnlineSnapshot.read(
            Namespace(model.settings.state, model.namespace).online_current,
            f"remove it, and run the DAG feature_refresh for the namespace {model.namespace}, which writes it anew",
        )
    except FileNotFoundError:
        return None


def require_views(model: ServingModel, release: Release, online: OnlineSnapshot | None, instead: str) -> None:
    """Refuse a release with which nothing would be ranked; without a snapshot nobody is answered, and nobody loses.

    Args:
        model: Whose release it is.
        release: What is to come into force.
        online: The snapshot in force.
        instead: What else to do, for the message.

    Raises:
        AbsentViewsError: The snapshot lacks a feature view that the release reads.
    """
    absent = release.absent_views(online) if online is not None else {}
    for group, view in absent.items():
        found = online.views.get(group, "none") if online is not None else "none"
        msg = (
            f"{model.name} version {release.ranker.version}: expected the feature view {view} online, which it "
            f"reads, found {found}: nothing would be ranked, so {model.meanwhile}; run the DAG feature_refresh for the "
            f"namespace {model.namespace} (its last command is `python -m pipelines publish`) with the code that the "
            f"version was trained with, or {instead}"
        )
        raise AbsentViewsError(msg)
