"""What of a Release the ranking needs, and whether the release fits the snapshot that is online."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.features import declared
from feature_repo.contracts.intervals import model_name
from feature_repo.contracts.list_policy import DECLARED, POLICY_PARTS, ListPolicy
from feature_repo.contracts.manifests import FILE_KINDS
from feature_repo.contracts.objectives import PROBABILITY
from feature_repo.contracts.publishing import CorruptRecordError, parse_json
from feature_repo.contracts.signatures import Scope, part_signature
from serving.recommender.errors import ReleaseError
from serving.recommender.pair_features import PairPlan, plan_pairs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.manifests import Part, Release
    from feature_repo.contracts.places import Serving
    from feature_repo.contracts.signatures import Signature
    from serving.recommender.lifetimes import Lifetime
    from serving.recommender.snapshot import Snapshot


_NO_PAIRS = PairPlan()


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
    groups: frozenset[str] = frozenset()
    """The feature groups that the model reads."""
    objective: str = PROBABILITY.name
    """What its scores mean: a name of `contracts.objectives`."""
    pairs: PairPlan = _NO_PAIRS
    """What the model reads of the channels."""


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


def load_policy(serving: Serving, release: Release) -> ListPolicy:
    """Return how a release makes lists, of those of its parts that are files.

    Raises:
        ReleaseError: A file is missing, or has other bytes than the release says.
        CorruptRecordError: It says something else.
    """
    policy = DECLARED
    for part in release.parts.values():
        if part.kind in FILE_KINDS:
            path = serving.file_part(release.namespace, part.name) / part.version / part.path
            content = _checked(path, part, release)
            if POLICY_PARTS.get(part.name) is part.kind:
                found = ListPolicy.from_json({part.name: parse_json(content, str(path), "publish it again")}, str(path))
                policy = replace(policy, **{part.name: getattr(found, part.name)})
    return policy


def _checked(path: Path, part: Part, release: Release) -> bytes:
    """Return the content of a part that is a file; ReleaseError where it is not what the release says."""
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"{path}: expected the {part.kind} of release {release.number}, received {error}; publish it again"
        raise ReleaseError(msg) from error
    if (received := hashlib.sha256(content).hexdigest()) != part.checksum:
        msg = f"{path}: expected SHA-256 {part.checksum}, received {received}; publish it again"
        raise ReleaseError(msg)
    return content


def may_wait(before: Release | None, after: Release | None) -> bool:
    """Tell whether answers may stay with a release until a snapshot fits the one in force.

    They may while it is the same, and after it was followed by a promotion: its models stay loaded. A rollback, which
    brings back a lower number, is urgent, and so is whatever comes after a release that is not loaded any longer.
    """
    if before is None or after is None:
        return before is after
    return before.number == after.number or after.previous == before.number < after.number


def plan_ranking(release: Release | None, snapshot: Snapshot) -> RankingPlan | RankingOff:
    """Work out how to rank, or why not: a model never meets features of another definition than it was trained on."""
    if release is None:
        return RankingOff("no release yet: model_rollout has promoted no model of this namespace")
    try:
        return _plan(release, snapshot)
    except (ReleaseError, CorruptRecordError) as error:
        return RankingOff(str(error))


def _plan(release: Release, snapshot: Snapshot) -> RankingPlan:
    """Return how to rank; ReleaseError or CorruptRecordError says why not."""
    ranker = release.ranker
    signature = _signature(release, snapshot)
    items = [column.name for column in signature.scoped(Scope.ITEM)]
    if absent := sorted(set(items) - snapshot.catalogue.inputs.keys()):
        msg = f"version {ranker.version} reads {absent}, which the catalogue lacks; run feature_refresh"
        raise ReleaseError(msg)
    if not ranker.version.isdecimal():
        msg = f"expected a ranker's version that is a whole number, received {ranker.version!r}"
        raise ReleaseError(msg)
    return RankingPlan(
        model=model_name(release.namespace, ranker.name),
        version=int(ranker.version),
        user_columns=signature.scoped(Scope.USER),
        item_inputs={name: snapshot.catalogue.inputs[name] for name in items},
        groups=frozenset(signature.views),
        objective=signature.objective.name,
        lifetimes=snapshot.catalogue.lifetimes,
        pairs=plan_pairs(signature, snapshot),
    )


def _signature(release: Release, snapshot: Snapshot) -> Signature:
    """Return what the ranker takes, if all of it is online, and defined as this recommender's code defines it."""
    ranker, manifest = release.ranker, snapshot.manifest
    if release.namespace != manifest.namespace:
        msg = f"expected a release of {manifest.namespace}, received one of {release.namespace}"
        raise ReleaseError(msg)
    for group, view in ranker.absent_views(manifest).items():
        msg = (
            f"version {ranker.version} reads feature view {view}, online is {manifest.views.get(group)}; train and "
            "promote a model on the new features, or refresh the old ones"
        )
        raise ReleaseError(msg)
    signature = part_signature(ranker, snapshot.schema)
    views = {group.name: group.view_name for group in declared(snapshot.schema).groups}
    if other := sorted(group for group, view in signature.views.items() if views.get(group) != view):
        msg = (
            f"version {ranker.version} was trained on other definitions than this recommender's code has (feature "
            f"views {other}); deploy the code that it was trained with"
        )
        raise ReleaseError(msg)
    return signature
