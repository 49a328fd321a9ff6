"""Models that lists are asked of: what each has learned from, and a model server of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.list_policy import DECLARED, QUOTAS, ListPolicy
from feature_repo.contracts.manifests import (
    Candidates,
    Part,
    PartKind,
    Refit,
    Release,
    TrainingSet,
    champion_named,
    model_data,
)
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

    from serving.lists.answering import Answering, Scored
    from serving.lists.questions import OriginQuestions
    from serving.recommender.release import RankingPlan
    from serving.recommender.snapshot import Snapshot

_VERSION = "1"
"""Under which a private server serves a model that no registry knows."""


@dataclass(frozen=True, slots=True)
class Ranker:
    """A SavedModel with the release that it is of, or would be."""

    saved_model: Path
    release: Release
    policy: ListPolicy = DECLARED
    """How lists are made of what it scores."""
    named: str = ""
    """What it is beside the candidate, for people."""

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


def candidate_release(place: Namespace, training_set: str, saved_model: Path, version: str = _VERSION) -> Release:
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
    ranker = Part(RANKING_MODEL, PartKind.RANKER, version, "", signature=signature.to_json(), data=data)
    return Release(place.name, 1, {RANKING_MODEL: ranker}, previous=0, previous_parts={}, why="")


def quotas_of(place: Namespace, questions_id: str, candidates_id: str) -> dict[str, int]:
    """Return the quotas that candidates were blended by; none for no candidates: then the declared ones count.

    Raises:
        QuestionsError: There are no such candidates, or they are of other questions.
    """
    if not candidates_id:
        return {}
    path = place.recalled / candidates_id / MANIFEST
    try:
        record = Candidates.read(path)
        ListPolicy.from_json({QUOTAS: record.quotas}, str(path))
    except (OSError, CorruptRecordError) as error:
        msg = f"{path}: expected what `python -m serving.lists candidates` writes, received {error}; name another id"
        raise QuestionsError(msg) from error
    received = (record.namespace, record.questions_id)
    if received != (place.name, questions_id):
        wanted = (place.name, questions_id)
        msg = f"{path}: expected candidates of namespace and questions {wanted}, received {received}; name others"
        raise QuestionsError(msg)
    return record.quotas


def champion(serving: Serving, place: Namespace, asked: OriginQuestions, refit: Path | None = None) -> Ranker:
    """Return the version in force, or the fit that stands in for it.

    Args:
        serving: Where it is served from.
        place: The data set.
        asked: What it would be asked.
        refit: What `python -m models refit` recorded of it; of another version it counts nothing.

    Raises:
        UnmeasurableError: There is none, or it knows the answers already.
        QuestionsError: There is no such record.
    """
    try:
        release = Release.read(serving.current_release(place.name))
    except FileNotFoundError as error:
        msg = "there is no champion yet"
        raise UnmeasurableError(msg) from error
    except CorruptRecordError as error:
        raise UnmeasurableError(str(error)) from error
    record = _refit_of(release.ranker, refit)
    if record is not None and record.saved_model:
        ranker = _fitted_again(place, record, _policy(serving, release))
        until = known_until(place, ranker.release)
    else:
        ranker = _served(serving, place, release)
        until = _learned_until(place, release, record)
    if until > asked.times[Asked.AT_ORIGIN][0]:
        msg = (
            f"version {ranker.version} has learned from events after the origin, up to {format_cutoff(until)}; "
            "`python -m models refit` fits its spec again"
        )
        raise UnmeasurableError(msg if record is None or not record.impossible else record.why_not)
    if not (ranker.saved_model / "saved_model.pb").is_file():
        msg = f"version {ranker.version}: expected its SavedModel in {ranker.saved_model}, found none"
        raise UnmeasurableError(msg)
    return ranker


def _served(serving: Serving, place: Namespace, release: Release) -> Ranker:
    version = release.ranker.version
    folder = serving.model(place.name, RANKING_MODEL) / version
    return Ranker(folder, release, _policy(serving, release), champion_named(version))


def _policy(serving: Serving, release: Release) -> ListPolicy:
    """Return how a release makes lists; UnmeasurableError where nobody can tell: users would get other lists."""
    try:
        return load_policy(serving, release)
    except (ReleaseError, CorruptRecordError) as error:
        raise UnmeasurableError(str(error)) from error


def _refit_of(ranker: Part, path: Path | None) -> Refit | None:
    """Return what is recorded of a version; None where that is another's."""
    if path is None:
        return None
    try:
        record = Refit.read(path)
    except (OSError, CorruptRecordError) as error:
        msg = f"{path}: expected what `python -m models refit` writes, received {error}; run it first"
        raise QuestionsError(msg) from error
    return record if record.is_of(ranker.version, ranker.run_id) else None


def _learned_until(place: Namespace, release: Release, record: Refit | None) -> datetime:
    """Return the end of a champion's rows: by its run, where that was looked at, for runs outlive training sets."""
    recorded = record.learned_until if record is not None else ""
    return datetime.fromisoformat(recorded) if recorded else known_until(place, release)


def _fitted_again(place: Namespace, record: Refit, policy: ListPolicy) -> Ranker:
    """Return the fit that stands in for the champion; UnmeasurableError if it is not the one that was recorded."""
    if fault := record.fault(place.root):
        msg = f"{record.named}: {fault}; run `python -m models refit` again"
        raise UnmeasurableError(msg)
    saved_model = place.root / record.saved_model
    release = candidate_release(place, record.training_set_id, saved_model, record.version)
    return Ranker(saved_model, release, policy, record.named)


def known_until(place: Namespace, release: Release) -> datetime:
    """Return the end of the rows that a release was fitted or chosen on; its cutoff where its training set is gone."""
    try:
        record = TrainingSet.read(place.training_sets / release.ranker.data["training_set_id"] / MANIFEST)
    except (FileNotFoundError, CorruptRecordError):
        return datetime.fromisoformat(release.ranker.data["cutoff"])
    return datetime.fromisoformat(record.valid_end)
