"""The job `measure`: questions, a SavedModel → the figures of the lists that its users would be shown."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.jobs import JobError
from feature_repo.contracts.manifests import Part, PartKind, Release, TrainingSet, model_data
from feature_repo.contracts.places import MANIFEST, Namespace, Serving
from feature_repo.contracts.publishing import CorruptRecordError, replacing, tree_sha256, write_json
from feature_repo.contracts.questions import Asked, Role
from feature_repo.contracts.signatures import RANKING_MODEL, read_signature
from serving.lists import report
from serving.lists.answering import Answering
from serving.lists.errors import QuestionsError
from serving.lists.questions import load_questions
from serving.lists.report import CANDIDATE, CHAMPION, UNRANKED, Shown
from serving.lists.simple import choose
from serving.protocol.private_server import private_server
from serving.recommender.release import RankingOff, plan_ranking
from serving.recommender.snapshot import load_snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from serving.lists.questions import OriginQuestions
    from serving.recommender.release import RankingPlan
    from serving.recommender.settings import Settings

_LOG = logging.getLogger(__name__)

_VERSION = 1
"""Under which a private server serves a model that no registry knows."""


def measure(  # noqa: PLR0917 - of whom, with what, asked what, to where
    settings: Settings,
    namespace: str,
    questions_id: str,
    saved_model: Path | None,
    training_set: str,
    origin: datetime | None,
    out: Path,
    figures: Path | None,
) -> dict[str, object]:
    """Answer the questions of a test origin and write the record; return what a person would read first.

    Args:
        settings: Of the recommender: its quotas and how many candidates it ranks.
        namespace: The data set.
        questions_id: Which questions.
        saved_model: The candidate's export; None measures recall and the simple lists alone.
        training_set: What the candidate has learned from.
        origin: Which test origin; None: the last one.
        out: Where the record goes.
        figures: Where each user's figures go, as Parquet; None: nowhere.

    Raises:
        QuestionsError: There are no such questions, or no such test origin.
        PrivateServerError: No model server comes up with the SavedModel.
        UnansweredError: It came up, and did not answer.
    """
    place = Namespace(settings.state, namespace)
    record, origins = load_questions(place, questions_id)
    for path in filter(None, (out, figures)):
        _check_writable(path)
    tests = [each for each in origins if each.role is Role.TEST]
    sha256 = "" if saved_model is None else tree_sha256(saved_model)
    if not tests:
        return _finish(out, report.empty_record(record, record.note or "there is no test origin", sha256))
    asked = _of_origin(tests, origin, questions_id)
    if not len(asked.users):
        why = f"nobody likes anything new between {asked.record['origin']} and {asked.record['end']}"
        return _finish(out, report.empty_record(record, why, sha256) | {"origin": dict(asked.record)})
    shown = _shown(settings, place, origins, asked, saved_model, training_set)
    if figures is not None:
        _write_figures(figures, shown)
    return _finish(out, report.record_of(record, shown, sha256))


def _check_writable(path: Path) -> None:
    """QuestionsError unless a file can be written there: better before the work than after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{path}: expected a place for a file, received {error}; name another"
        raise QuestionsError(msg) from error
    if path.is_dir():
        msg = f"{path}: expected a place for a file, received a folder; name a file in it"
        raise QuestionsError(msg)


def _finish(out: Path, record: dict[str, Any]) -> dict[str, object]:
    write_json(out, record)
    _LOG.info("%s", record["sentence"])
    return {"sentence": record["sentence"], "origin": record["origin"].get("origin", "")}


def why_unmeasurable(plan: RankingPlan | RankingOff) -> str:
    """Return why lists ranked so would be others than those that users get; empty if they would not.

    Of channels that the questions' snapshot has otherwise than the model reads them, users have those of a refresh.
    """
    return plan.reason if isinstance(plan, RankingOff) else "; ".join(plan.pairs.absent.values())


def _of_origin(tests: Sequence[OriginQuestions], origin: datetime | None, questions_id: str) -> OriginQuestions:
    if origin is None:
        return tests[-1]
    wanted = format_cutoff(origin)
    for each in tests:
        if each.record["origin"] == wanted:
            return each
    known = [each.record["origin"] for each in tests]
    msg = f"questions {questions_id}: expected one of the test origins {known}, received {wanted}; name one of them"
    raise QuestionsError(msg)


def _shown(  # noqa: PLR0917 - as for `measure`
    settings: Settings,
    place: Namespace,
    origins: Sequence[OriginQuestions],
    asked: OriginQuestions,
    saved_model: Path | None,
    training_set: str,
) -> Shown:
    snapshot = load_snapshot(place, asked.snapshot_pointer)
    if snapshot.vectors_problem:
        # The recommender would answer without them; measured so, lists would be worse than those that users get.
        msg = f"{snapshot.vectors_problem}; run `python -m pipelines questions` again, which fits them anew"
        raise QuestionsError(msg)
    answering = Answering(settings, asked, snapshot)
    lists: dict[Asked, dict[str, NDArray[np.intp]]] = {when: {} for when in Asked}
    absent: dict[str, str] = {}
    for name, (folder, release) in _rankers(settings, place, saved_model, training_set, asked, absent).items():
        plan = plan_ranking(release, snapshot)
        reason = why_unmeasurable(plan)
        if isinstance(plan, RankingOff) or reason:
            absent[name] = reason
            continue
        try:
            with private_server(folder, plan.model, plan.version) as (address, _):
                found = {when: answering.recommended(plan, address, when) for when in Asked}
        except JobError as error:
            if name != CHAMPION:
                raise
            absent[name] = (
                f"version {release.ranker.version}: {error}"  # what is served must not stop who may follow it
            )
            continue
        for when, own in found.items():
            lists[when][name] = own
        _LOG.info("%s: %d users asked twice", name, len(asked.users))
    chosen = choose(origins)
    simple = asked.simple_lists()
    for when in Asked:
        lists[when][UNRANKED] = answering.unranked(when)
        lists[when] |= {one.name: simple[one.method, one.variant] for one in chosen}
    return Shown(
        questions=asked,
        catalogue=snapshot.catalogue,
        ranked=settings.recommender_candidates,
        lists=lists,
        recall=answering.recalled(Asked.AT_ORIGIN),
        simple=chosen,
        absent=absent,
    )


def _rankers(  # noqa: PLR0917 - as for `measure`
    settings: Settings,
    place: Namespace,
    saved_model: Path | None,
    training_set: str,
    asked: OriginQuestions,
    absent: dict[str, str],
) -> dict[str, tuple[Path, Release]]:
    """Return the candidate and the champion, as far as there are any; `absent` gets why there are not."""
    rankers: dict[str, tuple[Path, Release]] = {}
    if saved_model is None:
        absent[CANDIDATE] = "no SavedModel was given"
        return rankers
    candidate = candidate_release(place, training_set, saved_model)
    if known_until(place, candidate) > asked.times[Asked.AT_ORIGIN][0]:
        absent[CANDIDATE] = f"training set {training_set} goes on after the origin: the model knows some of the answers"
    else:
        rankers[CANDIDATE] = (saved_model, candidate)
    champion = _champion(settings, place, asked, absent)
    return rankers | ({CHAMPION: champion} if champion else {})


def candidate_release(place: Namespace, training_set: str, saved_model: Path) -> Release:
    """Return a Release as the rollout would make it of a model that learned from a training set.

    Raises:
        QuestionsError: There is no such training set.
        CorruptRecordError: The SavedModel does not say what it takes.
    """
    path = place.training_sets / training_set / MANIFEST
    try:
        record = TrainingSet.read(path)
    except (OSError, CorruptRecordError) as error:
        msg = f"{path}: expected the manifest of the candidate's training set, received {error}; name another"
        raise QuestionsError(msg) from error
    signature = read_signature(saved_model)
    data = model_data(record, signature.views)
    ranker = Part(RANKING_MODEL, PartKind.RANKER, str(_VERSION), "", signature=signature.to_json(), data=data)
    return Release(place.name, 1, {RANKING_MODEL: ranker}, previous=0, previous_parts={}, why="")


def _champion(
    settings: Settings, place: Namespace, asked: OriginQuestions, absent: dict[str, str]
) -> tuple[Path, Release] | None:
    """Return the version in force and where it lies, unless there is none, or it knows the answers already."""
    serving = Serving(settings.state)
    try:
        release = Release.read(serving.current_release(place.name))
    except FileNotFoundError:
        absent[CHAMPION] = "there is no champion yet"
        return None
    except CorruptRecordError as error:
        absent[CHAMPION] = str(error)
        return None
    origin = asked.times[Asked.AT_ORIGIN][0]
    if known_until(place, release) > origin:
        absent[CHAMPION] = f"version {release.ranker.version} has learned from events after the origin"
        return None
    folder = serving.model(place.name, RANKING_MODEL) / release.ranker.version
    if not (folder / "saved_model.pb").is_file():
        absent[CHAMPION] = f"version {release.ranker.version}: expected its SavedModel in {folder}, found none"
        return None
    return folder, release


def known_until(place: Namespace, release: Release) -> datetime:
    """Return the end of the rows that a release was fitted or chosen on; its cutoff where its training set is gone."""
    try:
        record = TrainingSet.read(place.training_sets / release.ranker.data["training_set_id"] / MANIFEST)
    except (FileNotFoundError, CorruptRecordError):
        return datetime.fromisoformat(release.ranker.data["cutoff"])
    return datetime.fromisoformat(record.valid_end)


def _write_figures(path: Path, shown: Shown) -> None:
    """Write one row for each user, moment and list, so that figures of several origins and seeds can be pooled."""
    tables = []
    for when, lists in shown.lists.items():
        for name, own in lists.items():
            figures = report.by_user(shown, own)
            count = len(shown.questions.users)
            tables.append(
                pa.table(
                    {
                        "asked": pa.repeat(pa.scalar(when.value), count),
                        "list": pa.repeat(pa.scalar(name), count),
                        "user_id": pa.array(shown.questions.users, pa.string()),
                        "history": shown.questions.history,
                        **figures,
                    }
                )
            )
    with replacing(path) as part:
        pq.write_table(pa.concat_tables(tables), part, compression="zstd")
