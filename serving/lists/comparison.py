"""The job `compare`: the lists of several models at the validation origins, of which the best is to be chosen."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.intervals import check_id
from feature_repo.contracts.jobs import JobError
from feature_repo.contracts.list_policy import RERANKING, ListPolicy
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import tree_sha256, write_json
from feature_repo.contracts.questions import Asked, Role
from feature_repo.list_metrics import DECIDING
from serving.lists.answering import Answering
from serving.lists.errors import UnmeasurableError
from serving.lists.intervals import interval
from serving.lists.job import check_writable
from serving.lists.questions import load_questions
from serving.lists.rankers import Ranker, candidate_release, quotas_of
from serving.lists.reranking import Lists, fit_reranking, overlap_limit
from serving.lists.simple import best_of, choose, judged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from feature_repo.contracts.manifests import Questions
    from serving.lists.answering import Scored
    from serving.lists.questions import OriginQuestions
    from serving.lists.simple import Chosen
    from serving.recommender.settings import Settings

_LOG = logging.getLogger(__name__)
_FIGURES = (DECIDING, "recall_at_10")
_SEED = 1
_FIELDS = {"name", "saved_model", "training_set"}


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model that is compared with others."""

    name: str
    saved_model: Path
    training_set: str
    """The id of what it has learned from."""


def parse_models(text: str) -> tuple[Model, ...]:
    """Read `[{"name": …, "saved_model": …, "training_set": …}, …]`; ValueError for anything else.

    Whatever else a training says of itself is passed over. Nothing trained is an empty list.
    """
    example = '[{"name": "mlp", "saved_model": "DIR", "training_set": "ID"}]'
    try:
        given = json.loads(text)
    except ValueError as error:
        msg = f"models: expected JSON such as {example}, received {text[:80]!r} ({error})"
        raise ValueError(msg) from error
    if not isinstance(given, list):
        msg = f"models: expected a list such as {example}, received {text[:80]!r}"
        raise ValueError(msg)  # noqa: TRY004 - a wrong value of an option
    for each in given:
        if (
            not isinstance(each, dict)
            or not each.keys() >= _FIELDS
            or not all(isinstance(each[field], str) and each[field] for field in _FIELDS)
        ):
            msg = f"models: expected {sorted(_FIELDS)} of each, all of them texts, received {each!r:.200}"
            raise ValueError(msg)
    names = [each["name"] for each in given]
    if len(set(names)) < len(names):
        msg = f"models: expected distinct names, received {names}"
        raise ValueError(msg)
    return tuple(Model(each["name"], Path(each["saved_model"]), check_id(each["training_set"])) for each in given)


def compare(  # noqa: PLR0917 - of whom, asked what, offered what, which models, to where
    settings: Settings, namespace: str, questions_id: str, candidates_id: str, models: Sequence[Model], out: Path
) -> dict[str, object]:
    """Ask every model for the lists of the validation origins and write the record; return what decides.

    Each model's lists are re-ranked as suits them best, and such lists decide. A model that cannot be measured,
    whatever the reason, stops no other: `undefined` says why.

    Args:
        settings: Of the recommender: its quotas and how many candidates it ranks.
        namespace: The data set.
        questions_id: Which questions.
        candidates_id: What recall offered for them, and so by which quotas; empty: by the declared ones.
        models: Whose lists.
        out: Where the record goes.

    Raises:
        QuestionsError: There are no such questions or candidates, or a validation origin lacks what is asked with.
    """
    place = Namespace(settings.state, namespace)
    check_writable(out)
    questions, origins = load_questions(place, questions_id)
    asked = [origin for origin in origins if origin.role is Role.VALIDATION and len(origin.users)]
    quotas = quotas_of(place, questions_id, candidates_id)
    record = _head(questions, models, asked, quotas)
    if asked:
        answerings = [Answering.at(settings, place, origin, ListPolicy(quotas)) for origin in asked]
        record |= _compared(place, models, answerings, choose(origins), settings.lists_keep)
    else:
        record["undefined"] = {"every figure": questions.note or _why_nobody(origins)}
    write_json(out, record)
    figures = {name: own[DECIDING] for name, own in record["lists"].items()}
    sentence = _sentence(record, [model.name for model in models])
    _LOG.info("%s", sentence)
    return {"figures": figures, "sentence": sentence}


def _why_nobody(origins: Sequence[OriginQuestions]) -> str:
    spans = [
        f"{origin.record['origin']} and {origin.record['end']}" for origin in origins if origin.role is Role.VALIDATION
    ]
    return f"nobody likes anything new between {'; '.join(spans)}" if spans else "there is no validation origin"


def _head(
    questions: Questions, models: Sequence[Model], asked: Sequence[OriginQuestions], quotas: Mapping[str, int]
) -> dict[str, Any]:
    """Return the record before anything is measured."""
    return {
        "namespace": questions.namespace,
        "questions_id": questions.questions_id,
        "training_set_ids": sorted({model.training_set for model in models}),
        "origins": [dict(origin.record) for origin in asked],
        "users": 0,
        "quotas": dict(quotas),
        "overlap_limit": None,
        "best_simple": {"name": "", DECIDING: None},
        "unranked": {DECIDING: None},
        "lists": {},
        "undefined": {},
    }


def _compared(
    place: Namespace, models: Sequence[Model], answerings: Sequence[Answering], chosen: Sequence[Chosen], keep: float
) -> dict[str, Any]:
    """Return the measured fields of the record."""
    origins = [answering.questions for answering in answerings]
    best, limit = best_of(chosen), overlap_limit(origins, chosen)
    unranked = _figures(origins, [answering.unranked(Asked.AT_ORIGIN) for answering in answerings])
    users = np.unique(_judged_users(origins), return_inverse=True)
    lists: dict[str, dict[str, Any]] = {}
    undefined: dict[str, str] = {}
    for model in models:
        try:
            scored = _scored(place, model, answerings)
        except JobError as error:
            undefined[model.name] = str(error)
            _LOG.warning("%s is not measured: %s", model.name, error)
            continue
        shown = [Lists(origin, each) for origin, each in zip(origins, scored, strict=True)]
        reranking, tried = fit_reranking(shown, limit, keep)
        own = _figures(origins, [each.reordered(reranking) for each in scored])
        bounds = interval(own[DECIDING], users[1], _SEED)
        if bounds is None:
            undefined[f"{model.name}, interval"] = f"expected two users or more, there are {len(users[0])}"
        lists[model.name] = {
            "saved_model_sha256": tree_sha256(model.saved_model),
            **{name: float(own[name].mean()) for name in _FIGURES},
            "interval": bounds,
            RERANKING: asdict(reranking),
            "tried": [asdict(each) for each in tried],
        }
        mixed = f", {reranking.share:.0%} of {reranking.channel}" if reranking.share else ""
        _LOG.info("%s: %s %.3f, %d users%s", model.name, DECIDING, lists[model.name][DECIDING], len(users[0]), mixed)
    return {
        "users": len(users[0]),
        "overlap_limit": limit,
        "best_simple": {"name": best.name, DECIDING: best.validation},
        "unranked": {DECIDING: float(unranked[DECIDING].mean())},
        "lists": lists,
        "undefined": undefined,
    }


def _scored(place: Namespace, model: Model, answerings: Sequence[Answering]) -> list[Scored]:
    """Return the lists, origin by origin; UnmeasurableError where the model was fitted on answers."""
    release = candidate_release(place, model.training_set, model.saved_model)
    ranker = Ranker(model.saved_model, release, answerings[0].policy)
    # Its validation rows may lie among the answers: whoever stopped a fit by them has learned nothing else.
    fitted_until = datetime.fromisoformat(ranker.release.ranker.data["train_end"])
    for answering in answerings:
        origin = answering.questions
        if fitted_until > origin.times[Asked.AT_ORIGIN][0]:
            msg = (
                f"training set {model.training_set}: expected rows to fit on that end at the validation origin "
                f"{origin.record['origin']} or before, received rows up to {fitted_until.isoformat()}: the model "
                "knows some of the answers; write questions for this training set"
            )
            raise UnmeasurableError(msg)
    return [found[Asked.AT_ORIGIN] for found in ranker.scored(answerings, [Asked.AT_ORIGIN])]


def _figures(origins: Sequence[OriginQuestions], lists: Sequence[NDArray[np.intp]]) -> dict[str, NDArray[np.float64]]:
    """Return metric → `[questions]`, of the judged users of all origins."""
    own = [
        {name: values[judged(origin)] for name, values in origin.figures(shown).items() if name in _FIGURES}
        for origin, shown in zip(origins, lists, strict=True)
    ]
    return {name: np.concatenate([each[name] for each in own]) for name in _FIGURES}


def _judged_users(origins: Sequence[OriginQuestions]) -> NDArray[np.str_]:
    """Return `[questions]`, whose each figure of `_figures` is."""
    return np.concatenate([origin.users[judged(origin)] for origin in origins])


def _sentence(record: Mapping[str, Any], names: Sequence[str]) -> str:
    """Say plainly which model's lists are best, beside the best simple list, and which were not measured."""
    if "every figure" in record["undefined"]:
        return f"Lists were not compared: {record['undefined']['every figure']}."
    lists: Mapping[str, Mapping[str, Any]] = record["lists"]
    absent = [name for name in names if name not in lists]
    without = f" Not measured: {', '.join(absent)}." if absent else ""
    simple = record["best_simple"]
    if not lists:
        return f"No model's lists were measured.{without}"
    best = max(lists, key=lambda name: lists[name][DECIDING])
    own, other = lists[best][DECIDING], simple[DECIDING]
    verb = "beats" if own > other else "equals" if own == other else "loses to"
    users = f"{record['users']} user{'s' if record['users'] != 1 else ''}"
    return (
        f"Of {len(lists)} model{'s' if len(lists) > 1 else ''} {best} has the best lists on validation, and {verb} "
        f"{simple['name']}: NDCG@10 {own:.3f} against {other:.3f} ({users}).{without}"
    )
