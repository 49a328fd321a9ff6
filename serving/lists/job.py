"""The job `measure`: questions, a SavedModel → the figures of the lists that its users would be shown."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.jobs import JobError
from feature_repo.contracts.list_policy import DECLARED, ListPolicy, Reranking
from feature_repo.contracts.places import Namespace, Serving
from feature_repo.contracts.publishing import read_json, replacing, tree_sha256, write_json
from feature_repo.contracts.questions import Asked, Role
from serving.lists import report
from serving.lists.answering import Answering
from serving.lists.errors import QuestionsError, UnmeasurableError
from serving.lists.questions import load_questions
from serving.lists.rankers import Ranker, candidate_release, champion, known_until
from serving.lists.report import CANDIDATE, CHAMPION, NOT_RERANKED, UNRANKED, Shown
from serving.lists.simple import choose

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from serving.lists.questions import OriginQuestions
    from serving.recommender.settings import Settings

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Measured:
    """Whose lists are measured."""

    saved_model: Path | None = None
    """The candidate's export; None measures recall and the simple lists alone."""
    training_set: str = ""
    """What the candidate has learned from."""
    policy: Path | None = None
    """Quotas and re-ranking as `python -m models choose` writes them; None: the declared quotas alone."""
    refit: Path | None = None
    """What `python -m models refit` wrote: which fit stands in for a champion that knows the answers; None: such a
    champion is not measured."""


def measure(
    settings: Settings,
    namespace: str,
    questions_id: str,
    of: Measured,
    out: Path,
    *,
    origin: datetime | None = None,
    figures: Path | None = None,
) -> dict[str, object]:
    """Answer the questions of a test origin and write the record; return what a person would read first.

    Args:
        settings: Of the recommender: its quotas and how many candidates it ranks.
        namespace: The data set.
        questions_id: Which questions.
        of: Whose lists.
        out: Where the record goes.
        origin: Which test origin; None: the last one.
        figures: Where each user's figures go, as Parquet; None: nowhere.

    Raises:
        QuestionsError: There are no such questions, or no such test origin, or it lacks what is asked with; or there is
            no such record of a fit, or no such policy.
        PrivateServerError: No model server comes up with the SavedModel.
        UnansweredError: It came up, and did not answer.
    """
    place = Namespace(settings.state, namespace)
    record, origins = load_questions(place, questions_id)
    for path in filter(None, (out, figures)):
        check_writable(path)
    tests = [each for each in origins if each.role is Role.TEST]
    sha256 = "" if of.saved_model is None else tree_sha256(of.saved_model)
    if not tests:
        return _finish(out, report.empty_record(record, record.note or "there is no test origin", sha256))
    asked = _of_origin(tests, origin, questions_id)
    if not len(asked.users):
        why = f"nobody likes anything new between {asked.record['origin']} and {asked.record['end']}"
        return _finish(out, report.empty_record(record, why, sha256) | {"origin": dict(asked.record)})
    policy = _policy(of.policy)
    shown = _shown(Answering.at(settings, place, asked, policy), place, origins, of)
    if figures is not None:
        _write_figures(figures, shown)
    return _finish(out, report.record_of(record, shown, sha256) | {"policy": policy.record()})


def check_writable(path: Path) -> None:
    """QuestionsError unless a file can be written there: better before the work than after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{path}: expected a place for a file, received {error}; name another"
        raise QuestionsError(msg) from error
    if path.is_dir():
        msg = f"{path}: expected a place for a file, received a folder; name a file in it"
        raise QuestionsError(msg)


def _policy(path: Path | None) -> ListPolicy:
    """Return a policy that lies in a file; the declared quotas alone where there is none.

    Raises:
        QuestionsError: There is no such file.
        CorruptRecordError: It is something else.
    """
    if path is None:
        return DECLARED
    try:
        return ListPolicy.from_json(read_json(path), str(path))
    except OSError as error:
        msg = f"{path}: expected what `python -m models choose` writes, received {error}; name another"
        raise QuestionsError(msg) from error


def _finish(out: Path, record: dict[str, Any]) -> dict[str, object]:
    write_json(out, record)
    _LOG.info("%s", record["sentence"])
    return {"sentence": record["sentence"], "origin": record["origin"].get("origin", "")}


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


def _shown(answering: Answering, place: Namespace, origins: Sequence[OriginQuestions], of: Measured) -> Shown:
    asked = answering.questions
    lists: dict[Asked, dict[str, NDArray[np.intp]]] = {when: {} for when in Asked}
    not_reranked: dict[Asked, NDArray[np.intp]] = {}
    absent: dict[str, str] = {}
    rankers = _rankers(answering, place, of, absent)
    for name, ranker in rankers.items():
        try:
            (found,) = ranker.scored([answering], Asked)
        except UnmeasurableError as error:
            absent[name] = str(error)
            continue
        except JobError as error:
            if name != CHAMPION:
                raise
            # What is served must not stop who may follow it.
            absent[name] = f"version {ranker.version}: {error}"
            continue
        for when, own in found.items():
            lists[when][name] = own.lists
        if name == CANDIDATE:
            not_reranked = {when: own.reordered(Reranking()) for when, own in found.items()}
        _LOG.info("%s: %d users asked twice", name, len(asked.users))
    chosen = choose(origins)
    simple = asked.simple_lists()
    for when in Asked:
        lists[when] |= {NOT_RERANKED: not_reranked[when]} if not_reranked else {}
        lists[when][UNRANKED] = answering.unranked(when)
        lists[when] |= {one.name: simple[one.method, one.variant] for one in chosen}
    return Shown(
        questions=asked,
        catalogue=answering.snapshot.catalogue,
        ranked=answering.settings.recommender_candidates,
        lists=lists,
        recall=answering.recalled(Asked.AT_ORIGIN),
        simple=chosen,
        absent=absent,
        champion=rankers[CHAMPION].named if CHAMPION in lists[Asked.AT_ORIGIN] else "",
    )


def _rankers(answering: Answering, place: Namespace, of: Measured, absent: dict[str, str]) -> dict[str, Ranker]:
    """Return the candidate and the champion, as far as there are any; `absent` gets why there are not."""
    if of.saved_model is None:
        absent[CANDIDATE] = "no SavedModel was given"
        return {}
    asked = answering.questions
    rankers: dict[str, Ranker] = {}
    release = candidate_release(place, of.training_set, of.saved_model)
    candidate = Ranker(of.saved_model, release, answering.policy)
    if known_until(place, candidate.release) > asked.times[Asked.AT_ORIGIN][0]:
        why = f"training set {of.training_set} goes on after the origin: the model knows some of the answers"
        absent[CANDIDATE] = why
    else:
        rankers[CANDIDATE] = candidate
    try:
        rankers[CHAMPION] = champion(Serving(place.state), place, asked, of.refit)
    except UnmeasurableError as error:
        absent[CHAMPION] = str(error)
    return rankers


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
