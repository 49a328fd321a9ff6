"""What of a Release the ranking needs, and whether the release fits the snapshot that is online."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.intervals import model_name
from feature_repo.contracts.signatures import RANKING_MODEL, Scope, ranking

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.manifests import Release
    from serving.recommender.lifetimes import Lifetime
    from serving.recommender.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class RankingPlan:
    """How to ask the model server for scores: worked out once per pair of snapshot and release."""

    model: str
    version: int
    user_columns: tuple[Column, ...]
    item_inputs: Mapping[str, NDArray[Any]]
    """Item column → `[items]` or `[items, length]`, in the catalogue's order."""
    lifetimes: tuple[Lifetime, ...] = ()
    """Of the item features that grow old."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A version that is compared with the one in force: it gets a share of the requests, and nobody sees its scores."""

    plan: RankingPlan
    mark: tuple[int, int, int] | None
    """Tells one comparison from the next, of the same version perhaps."""


@dataclass(frozen=True, slots=True)
class RankingOff:
    """Nothing is ranked, and why."""

    reason: str


def plan_ranking(release: Release | None, snapshot: Snapshot) -> RankingPlan | RankingOff:
    """Work out how to rank, or why not: a model never meets features of another definition than it was trained on."""
    if release is None:
        return RankingOff("no release yet: model_rollout has promoted no model of this namespace")
    signature = ranking(snapshot.schema)
    if release.namespace != snapshot.manifest.namespace or release.model != signature.model:
        received = f"{release.namespace}.{release.model}"
        return RankingOff(f"expected a release of {snapshot.manifest.namespace}.{RANKING_MODEL}, received {received}")
    for group, view in release.absent_views(snapshot.manifest).items():
        return RankingOff(
            f"version {release.version} reads feature view {view}, online is {snapshot.manifest.views.get(group)}; "
            "train and promote a model on the new features, or refresh the old ones"
        )
    declared = {item.column.name: item for item in signature.inputs}
    unknown = sorted(set(release.inputs) - declared.keys())
    other = {group: view for group, view in signature.views.items() if release.views.get(group) != view}
    if unknown or other:
        return RankingOff(
            f"version {release.version} was trained on other definitions than this recommender's code has "
            f"(inputs {unknown}, feature views {sorted(other)}); deploy the code that it was trained with"
        )
    if not release.version.isdecimal():
        return RankingOff(f"expected a release version that is a whole number, received {release.version!r}")
    inputs = [declared[name] for name in release.inputs]
    return RankingPlan(
        model=model_name(release.namespace, release.model),
        version=int(release.version),
        user_columns=tuple(item.column for item in inputs if item.scope is Scope.USER),
        item_inputs={
            item.column.name: snapshot.catalogue.inputs[item.column.name] for item in inputs if item.scope is Scope.ITEM
        },
        lifetimes=snapshot.catalogue.lifetimes,
    )
