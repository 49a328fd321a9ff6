"""Models that lists are asked of: what each has learned from, and a model server of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from feature_repo.contracts.list_policy import DECLARED
from feature_repo.contracts.manifests import Candidates, Part, PartKind, Release, TrainingSet, model_data
from feature_repo.contracts.places import MANIFEST, Namespace, Serving
from feature_repo.contracts.publishing import CorruptRecordError
from feature_repo.contracts.questions import Asked
from feature_repo.contracts.signatures import RANKING_MODEL, read_signature
from serving.lists.errors import QuestionsError, UnmeasurableError
from serving.protocol.private_server import private_server
from serving.recommender.errors import ReleaseError
from serving.recommender.release import RankingOff, load_policy, plan_ranking

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from feature_repo.contracts.list_policy import ListPolicy
    from serving.lists.answering import Answering, Scored
    from serving.lists.questions import OriginQuestions
    from serving.recommender.release import RankingPlan
    from serving.recommender.snapshot import Snapshot

_VERSION = 1
"""Under which a private server serves a model that no registry knows."""


@dataclass(frozen=True, slots=True)
class Ranker:
    """A SavedModel with the release that it is of, or would be."""

    saved_model: Path
    release: Release
    policy: ListPolicy = DECLARED
    """How lists are made of what it scores."""

    @property
    def version(self) -> str:
        """The model's version."""
        return self.release.ranker.version

    def scored(self, answerings: Sequence[Answering], asked: Iterable[Asked]) -> list[dict[Asked, Scored]]:
        """Return, origin by origin, when → what every user would be shown, and the scores that it follows from.

        Args:
            answerings: The origins: one at least.
            asked: When users are asked at each.

        Raises:
            UnmeasurableError: The model does not read what is known at an origin.
            PrivateServerError: No model server comes up with it.
            UnansweredError: It came up, and did not answer.
        """
        plans = [_plan(self.release, answering.snapshot) for answering in answerings]
        moments = list(asked)
        with private_server(self.saved_model, plans[0].model, plans[0].version) as (address, _):
            return [
                {when: replace(answering, policy=self.policy).scored(plan, address, when) for when in moments}
                for answering, plan in zip(answerings, plans, strict=True)
            ]


def _plan(release: Release, snapshot: Snapshot) -> RankingPlan:
    """Return how a model is asked; UnmeasurableError where users would get other lists than those."""
    plan = plan_ranking(release, snapshot)
    reason = why_unmeasurable(plan)
    if isinstance(plan, RankingOff) or reason:
        raise UnmeasurableError(reason)
    return plan


def why_unmeasurable(plan: RankingPlan | RankingOff) -> str:
    """Return why lists ranked so would be others than those that users get; empty if they would not.

    Of channels that the questions' snapshot has otherwise than the model reads them, users have those of a refresh.
    """
    return plan.reason if isinstance(plan, RankingOff) else "; ".join(plan.pairs.absent.values())


def candidate_release(place: Namespace, training_set: str, saved_model: Path) -> Release:
    """Return a Release as the rollout would make it of a model that learned from a training set, of whichever kind.

    Raises:
        QuestionsError: There is no such training set.
        CorruptRecordError: The SavedModel does not say what it takes.
    """
    path = place.training_sets / training_set / MANIFEST
    try:
        record = TrainingSet.read(path)
    except (OSError, CorruptRecordError) as error:
        msg = f"{path}: expected the manifest of the model's training set, received {error}; name another"
        raise QuestionsError(msg) from error
    signature = read_signature(saved_model)
    data = model_data(record, signature.views)
    ranker = Part(RANKING_MODEL, PartKind.RANKER, str(_VERSION), "", signature=signature.to_json(), data=data)
    return Release(place.name, 1, {RANKING_MODEL: ranker}, previous=0, previous_parts={}, why="")


def quotas_of(place: Namespace, candidates_id: str) -> dict[str, int]:
    """Return the quotas that candidates were blended by; none for no candidates: then the declared ones count.

    Raises:
        QuestionsError: There are no such candidates.
    """
    if not candidates_id:
        return {}
    path = place.recalled / candidates_id / MANIFEST
    try:
        return Candidates.read(path).quotas
    except (OSError, CorruptRecordError) as error:
        msg = f"{path}: expected what `python -m serving.lists candidates` writes, received {error}; name another id"
        raise QuestionsError(msg) from error


def champion(serving: Serving, place: Namespace, asked: OriginQuestions) -> Ranker:
    """Return the version in force.

    Raises:
        UnmeasurableError: There is none, or it knows the answers already.
    """
    try:
        release = Release.read(serving.current_release(place.name))
    except FileNotFoundError as error:
        msg = "there is no champion yet"
        raise UnmeasurableError(msg) from error
    except CorruptRecordError as error:
        raise UnmeasurableError(str(error)) from error
    version = release.ranker.version
    if known_until(place, release) > asked.times[Asked.AT_ORIGIN][0]:
        msg = f"version {version} has learned from events after the origin"
        raise UnmeasurableError(msg)
    folder = serving.model(place.name, RANKING_MODEL) / version
    if not (folder / "saved_model.pb").is_file():
        msg = f"version {version}: expected its SavedModel in {folder}, found none"
        raise UnmeasurableError(msg)
    try:
        return Ranker(folder, release, load_policy(serving, release))
    except (ReleaseError, CorruptRecordError) as error:
        raise UnmeasurableError(str(error)) from error


def known_until(place: Namespace, release: Release) -> datetime:
    """Return the end of the rows that a release was fitted or chosen on; its cutoff where its training set is gone."""
    try:
        record = TrainingSet.read(place.training_sets / release.ranker.data["training_set_id"] / MANIFEST)
    except (FileNotFoundError, CorruptRecordError):
        return datetime.fromisoformat(release.ranker.data["cutoff"])
    return datetime.fromisoformat(record.valid_end)
