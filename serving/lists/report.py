"""Lists → one record: tables by when and who, what recall and ranking each lose, slices, three users' lists.

A figure that is undefined is null, and `undefined` says why.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo import list_metrics as metrics
from feature_repo.contracts.questions import LONG_HISTORY, Asked
from feature_repo.list_metrics import DECIDING
from serving.lists.intervals import interval
from serving.lists.simple import best_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from feature_repo.contracts.manifests import Questions
    from serving.lists.answering import Recall
    from serving.lists.questions import OriginQuestions
    from serving.lists.simple import Chosen
    from serving.recommender.catalogue import Catalogue

CANDIDATE, CHAMPION, UNRANKED = "candidate", "champion", "unranked"
"""Names of the rows that are not simple lists. Unranked is what users get where no model is in force."""
NOT_RERANKED = "not re-ranked"
"""The candidate's lists in the order of its scores alone."""
HISTORIES = {f"{LONG_HISTORY}+": (LONG_HISTORY, np.inf), f"1 to {LONG_HISTORY - 1}": (1, LONG_HISTORY - 1), "0": (0, 0)}
"""Groups of users by their events before the origin; the first is what verdicts are about."""
RECALL_DEPTHS = (50, 200, 500)
K = 10
_MOST_TERMS, _SHOWN_TERMS = 200, 8
"""Terms that diversity is measured by, and those that are slices."""
_YOUNG_S = 30 * 86_400
_HEAD, _MIDDLE = 100, 500
_EXAMPLES_AT = (0.1, 0.5, 0.9)
"""Which users are shown: a busy one, a middling one, and a quiet one, by their place in the order of activity."""
_MOST_LIKED_SHOWN = 30
_WHY_UNDEFINED = {
    "interval": "expected two users or more",
    "coverage": "expected a catalogue of one item or more",
    "novelty": "expected items that were shown, and events before the origin",
    "diversity": "expected a list with two items that have terms",
    "overlap": "expected two users or more",
}
"""Figure of a list → when some users who are asked do not make it defined."""
_SEED = 1


@dataclass(frozen=True, slots=True)
class Shown:
    """Everything that was shown at one origin, and what it is judged by."""

    questions: OriginQuestions
    catalogue: Catalogue
    ranked: int
    """How many candidates the recommender ranks."""
    lists: Mapping[Asked, Mapping[str, NDArray[np.intp]]]
    """When → name of a list → `[users, LIST_DEPTH]`; the candidate first, simple lists last."""
    recall: Recall
    """Asked at the origin."""
    simple: Sequence[Chosen]
    absent: Mapping[str, str] = field(default_factory=dict)
    """Name of a list that there is none of → why."""
    champion: str = ""
    """Whose the champion's lists are, for people; empty where there are none."""


def group_of(history: NDArray[np.int64], group: str) -> NDArray[np.bool_]:
    """Return `[users]`, who belongs to a group of HISTORIES."""
    least, most = HISTORIES[group]
    return (history >= least) & (history <= most)


def judged(shown: Shown) -> NDArray[np.bool_]:
    """Return `[users]`, whom verdicts are about."""
    return group_of(shown.questions.history, next(iter(HISTORIES)))


def record_of(questions: Questions, shown: Shown, saved_model_sha256: str = "") -> dict[str, Any]:
    """Return the record of an origin, ready for JSON; `saved_model_sha256` names the candidate's export."""
    undefined: dict[str, str] = dict(shown.absent)
    if any(one.validation is None for one in shown.simple):
        undefined["choice of simple lists"] = "no validation origin has a question: the stated variants count"
    against, terms = _against(shown, undefined), _terms(shown.catalogue)
    tables = [_table(shown, asked, group, terms, undefined) for asked in Asked for group in HISTORIES]
    return {
        **_head(questions, saved_model_sha256),
        "origin": dict(shown.questions.record),
        "simple": [asdict(one) for one in shown.simple],
        "best_simple": best_of(shown.simple).name,
        "users": int(judged(shown).sum()),
        "champion": shown.champion,
        "tables": tables,
        "against": against,
        "recall": _recall(shown, undefined),
        "slices": _slices(shown, terms, undefined),
        "examples": _examples(shown),
        "undefined": undefined,
        "sentence": " ".join(filter(None, (sentence(shown), certainty(shown, against), beside_recall(shown)))),
    }


def empty_record(questions: Questions, why: str, saved_model_sha256: str = "") -> dict[str, Any]:
    """Return the record where there is nothing to ask: every figure is undefined for the same reason."""
    return {
        **_head(questions, saved_model_sha256),
        "origin": {},
        "simple": [],
        "best_simple": "",
        "users": 0,
        "champion": "",
        "tables": [],
        "against": [],
        "recall": {},
        "slices": {},
        "examples": [],
        "undefined": {"every figure": why},
        "sentence": f"Lists were not measured: {why}.",
    }


def _head(questions: Questions, saved_model_sha256: str) -> dict[str, Any]:
    return {
        "namespace": questions.namespace,
        "questions_id": questions.questions_id,
        "training_set_id": questions.training_set_id,
        "saved_model_sha256": saved_model_sha256,
        "days": questions.days,
    }


def found(shown: Shown, lists: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return `[users, depth]`, which places of the lists hold an answer."""
    return shown.questions.hits(lists)


def by_user(shown: Shown, lists: NDArray[np.intp]) -> dict[str, NDArray[np.float64]]:
    """Return metric → `[users]`."""
    return shown.questions.figures(lists)


def _table(shown: Shown, asked: Asked, group: str, terms: Terms, undefined: dict[str, str]) -> dict[str, Any]:
    chosen = group_of(shown.questions.history, group)
    if not chosen.any():
        undefined[f"{asked.value}, {group} events"] = (
            f"no user with {group} events before the origin likes something new"
        )
    rows = [_row(shown, name, lists, chosen, terms) for name, lists in shown.lists[asked].items()]
    for figure, why in _WHY_UNDEFINED.items():
        without = [row["list"] for row in rows if row[figure] is None]
        if without and chosen.any():
            undefined[f"{asked.value}, {group} events, {figure}"] = f"{why}: {', '.join(without)}"
    answers = int(shown.questions.answer_counts[chosen].sum())
    return {"asked": asked.value, "history": group, "users": int(chosen.sum()), "answers": answers, "rows": rows}


def _row(shown: Shown, name: str, lists: NDArray[np.intp], chosen: NDArray[np.bool_], terms: Terms) -> dict[str, Any]:
    items = len(shown.questions.item_ids)
    values = {metric: own[chosen] for metric, own in by_user(shown, lists).items()}
    own = lists[chosen]
    deciding = values[DECIDING]
    return {
        "list": name,
        **{metric: mean(figures) for metric, figures in values.items()},
        "interval": interval(deciding, np.arange(len(deciding)), _SEED),
        "coverage": metrics.coverage(own, K, items) if len(own) else None,
        "novelty": metrics.novelty(own, K, shown.catalogue.inputs["item_event_count"]),
        "diversity": metrics.diversity(own, K, terms.has),
        "overlap": metrics.overlap(own, K, items),
    }


def mean(values: NDArray[np.float64]) -> float | None:
    """Return the mean; None of nothing."""
    return float(values.mean()) if len(values) else None


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of the first attribute that has any, most frequent first."""

    names: list[str]
    has: NDArray[np.bool_]
    """`[items, terms]`, which item has which."""


def _terms(catalogue: Catalogue) -> Terms:
    own = next((terms for terms in catalogue.terms.values() if any(terms)), ())
    counts = Counter(term for terms in own for term in terms)
    names = sorted(counts, key=lambda term: (-counts[term], term))[:_MOST_TERMS]
    places = {term: place for place, term in enumerate(names)}
    has = np.zeros((len(catalogue), len(names)), dtype=np.bool_)
    for item, terms in enumerate(own):
        has[item, [places[term] for term in terms if term in places]] = True
    return Terms(names, has)


def _against(shown: Shown, undefined: dict[str, str]) -> list[dict[str, Any]]:
    """Return the candidate's deciding metric less every other list's, over the users that verdicts are about."""
    lists = shown.lists[Asked.AT_ORIGIN]
    chosen = judged(shown)
    if CANDIDATE not in lists:
        return []
    own = by_user(shown, lists[CANDIDATE])[DECIDING][chosen]
    differences = []
    for name, other in lists.items():
        if name == CANDIDATE:
            continue
        difference = own - by_user(shown, other)[DECIDING][chosen]
        bounds = interval(difference, np.arange(len(difference)), _SEED)
        if bounds is None:
            undefined[f"interval against {name}"] = f"expected two users or more, there are {len(difference)}"
        differences.append({"list": name, "difference": mean(difference), "interval": bounds})
    return differences


def _recall(shown: Shown, undefined: dict[str, str]) -> dict[str, Any]:
    """Return what the candidates hold, and so what recall and ranking lose each."""
    counts = shown.questions.answer_counts
    chosen = judged(shown)
    if not chosen.any():
        undefined["recall"] = f"no user with {LONG_HISTORY} events or more before the origin likes something new"
        return {}
    candidates = found(shown, shown.recall.candidates)
    possible = metrics.best_possible(candidates[:, : shown.ranked], counts, K)[chosen]
    lists = shown.lists[Asked.AT_ORIGIN]
    ranked = by_user(shown, lists[CANDIDATE])[DECIDING][chosen] if CANDIDATE in lists else None
    return {
        **{f"recall_at_{depth}": _share(candidates, counts, depth, chosen) for depth in RECALL_DEPTHS},
        "ranked": shown.ranked,
        "best_possible": mean(possible),
        "lost_by_recall": mean(1 - possible),
        "lost_by_ranking": None if ranked is None else mean(possible - ranked),
        "channels": _channels(shown, chosen, undefined),
    }


def _share(hits: NDArray[np.bool_], counts: NDArray[np.int64], k: int, chosen: NDArray[np.bool_]) -> float | None:
    """Return the mean share of a user's answers that are among the first k: all answers count, however many."""
    return mean((hits[:, :k].sum(axis=1) / counts)[chosen])


def _channels(shown: Shown, chosen: NDArray[np.bool_], undefined: dict[str, str]) -> list[dict[str, Any]]:
    counts, channels = shown.questions.answer_counts, shown.recall.channels
    whole = _found_in(shown, list(channels.values()))
    rows = []
    for name, own in channels.items():
        others = [lists for other, lists in channels.items() if other != name]
        without = _found_in(shown, others)
        hits = found(shown, own)
        if (own < 0).all():
            undefined[f"channel {name}"] = (
                "it found nothing for anybody: too little was liked before the origin to fit it"
            )
        rows.append(
            {
                "channel": name,
                **{f"recall_at_{depth}": _share(hits, counts, depth, chosen) for depth in RECALL_DEPTHS},
                "adds": mean(((whole - without) / counts)[chosen]),
            }
        )
    return rows


def _pairs(shown: Shown, lists: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    """Return the distinct (user, item) pairs of several lists, coded as `user * items + item`."""
    rows = np.arange(len(shown.questions.users), dtype=np.intp)[:, None] * np.intp(len(shown.questions.item_ids))
    pairs = [(rows + each)[each >= 0] for each in lists]
    return np.unique(np.concatenate(pairs)) if pairs else np.empty(0, dtype=np.intp)


def _inside(shown: Shown, lists: Sequence[NDArray[np.intp]]) -> NDArray[np.bool_]:
    """Return `[answers]`, which of them are in any of their user's lists."""
    questions = shown.questions
    coded = questions.answer_users * np.intp(len(questions.item_ids)) + questions.answer_items
    inside: NDArray[np.bool_] = np.isin(coded, _pairs(shown, lists)) & (questions.answer_items >= 0)
    return inside


def _found_in(shown: Shown, lists: Sequence[NDArray[np.intp]]) -> NDArray[np.int64]:
    """Return `[users]`, how many answers are in any of the lists."""
    inside = _inside(shown, lists)
    return np.bincount(shown.questions.answer_users[inside], minlength=len(shown.questions.users))


def _slices(shown: Shown, terms: Terms, undefined: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Return the share of the answers that are among the first 10 and 100, by what their items are."""
    questions = shown.questions
    known = questions.answer_items >= 0
    items = np.maximum(questions.answer_items, 0)
    inputs = shown.catalogue.inputs
    begun = inputs["item_first_event_time"][items]
    origin = questions.times[Asked.AT_ORIGIN][0].timestamp() if questions.users.size else 0.0
    ranks = np.empty(len(questions.item_ids), dtype=np.intp)
    ranks[shown.catalogue.popular] = np.arange(len(ranks))
    rank = ranks[items]
    old, is_young = known & ~questions.is_new, begun >= origin - _YOUNG_S
    of_terms = {term: known & terms.has[items, place] for place, term in enumerate(terms.names)}
    frequent = sorted(of_terms, key=lambda term: (-int(of_terms[term].sum()), term))[:_SHOWN_TERMS]
    slices = {
        "item age": {
            "new: nobody had it before": questions.is_new,
            "begun in the 30 days before": old & is_young,
            "older": old & ~is_young,
        },
        "item popularity": {
            f"the {_HEAD} with most events": old & (rank < _HEAD),
            f"the {_MIDDLE - _HEAD} after them": old & (rank >= _HEAD) & (rank < _MIDDLE),
            "all others": ~(old & (rank < _MIDDLE)),
        },
        "term": {term: of_terms[term] for term in frequent if of_terms[term].any()},
    }
    for kind, parts in slices.items():
        undefined |= {f"{kind}, {title}": "no answer belongs to it" for title, own in parts.items() if not own.any()}
    return {kind: _slice_rows(shown, parts) for kind, parts in slices.items()}


def _slice_rows(shown: Shown, slices: Mapping[str, NDArray[np.bool_]]) -> list[dict[str, Any]]:
    lists = shown.lists[Asked.AT_ORIGIN]
    names = [name for name in (CANDIDATE, UNRANKED, best_of(shown.simple).name) if name in lists]
    inside = {(name, k): _inside(shown, [lists[name][:, :k]]) for name in names for k in (K, 100)}
    return [
        {
            "slice": title,
            "answers": int(chosen.sum()),
            **{f"{name}, first {k}": mean(hit[chosen].astype(np.float64)) for (name, k), hit in inside.items()},
        }
        for title, chosen in slices.items()
    ]


def _examples(shown: Shown) -> list[dict[str, Any]]:
    """Return what a busy, a middling and a quiet user were shown, beside what they then liked."""
    questions, catalogue = shown.questions, shown.catalogue
    lists = shown.lists[Asked.AT_ORIGIN]
    name = CANDIDATE if CANDIDATE in lists else UNRANKED
    asked = np.flatnonzero(judged(shown))
    if not len(asked):
        return []
    order = asked[np.argsort(-questions.history[asked], kind="stable")]
    places = dict.fromkeys(int(order[int(share * (len(order) - 1))]) for share in _EXAMPLES_AT)
    examples = []
    for place in places:
        own = questions.answer_users == place
        wanted = dict(zip(questions.answer_ids[own].tolist(), questions.answer_items[own].tolist(), strict=True))
        top = [int(item) for item in lists[name][place, :K] if item >= 0]
        examples.append(
            {
                "user": str(questions.users[place]),
                "events_before": int(questions.history[place]),
                "list": name,
                "shown": [
                    {
                        "item": catalogue.item_ids[item],
                        "title": catalogue.titles[item],
                        "liked": item in wanted.values(),
                    }
                    for item in top
                ],
                "liked": [
                    {"item": item_id, "title": catalogue.titles[item] if item >= 0 else item_id}
                    for item_id, item in wanted.items()
                ][:_MOST_LIKED_SHOWN],
                "liked_in_all": len(wanted),
            }
        )
    return examples


def sentence(shown: Shown) -> str:
    """Say plainly how the candidate does beside the simple lists."""
    lists = shown.lists[Asked.AT_ORIGIN]
    chosen = judged(shown)
    if not chosen.any():
        return (
            f"Lists were not measured: nobody with {LONG_HISTORY} events or more before the origin likes something new "
            "after it."
        )
    if CANDIDATE not in lists:
        return f"The candidate's lists were not measured: {shown.absent.get(CANDIDATE, 'no model was given')}."
    figures = {name: float(by_user(shown, own)[DECIDING][chosen].mean()) for name, own in lists.items()}
    own = figures[CANDIDATE]
    simple = {one.name: figures[one.name] for one in shown.simple}
    better = sorted((name for name, value in simple.items() if value > own), key=lambda name: -simple[name])
    count = int(chosen.sum())
    users = f"{count} user{'s' if count > 1 else ''}, NDCG@{K}"
    if not better and own in simple.values():
        equal = ", ".join(name for name, value in simple.items() if value == own)
        return f"No simple list beats the candidate's lists, and they do not beat {equal}: {own:.3f} ({users})."
    if not better:
        best = max(simple, key=lambda name: simple[name])
        return (
            f"The candidate's lists beat every simple list: {own:.3f} against {simple[best]:.3f} of {best} ({users})."
        )
    losing = ", ".join(f"{name} ({simple[name]:.3f})" for name in better)
    how_many = "every simple list" if len(better) == len(simple) else f"{len(better)} of {len(simple)} simple lists"
    return f"The candidate's lists lose to {how_many}: {own:.3f} against {losing} ({users})."


def beside_recall(shown: Shown) -> str:
    """Say where ranking makes lists worse, and what recall alone gives where nothing was ranked."""
    lists = shown.lists[Asked.AT_ORIGIN]
    chosen = judged(shown)
    if not chosen.any():
        return ""
    unranked = float(by_user(shown, lists[UNRANKED])[DECIDING][chosen].mean())
    if CANDIDATE not in lists:
        best = best_of(shown.simple).name
        simple = float(by_user(shown, lists[best])[DECIDING][chosen].mean())
        return f"NDCG@{K} of the unranked lists is {unranked:.3f}, of {best} {simple:.3f}."
    if unranked > float(by_user(shown, lists[CANDIDATE])[DECIDING][chosen].mean()):
        return f"Ranking makes them worse: unranked they reach {unranked:.3f}."
    return ""


def certainty(shown: Shown, against: Sequence[Mapping[str, Any]]) -> str:
    """Say which differences from simple lists may be chance; nothing where there are none."""
    simple = {one.name for one in shown.simple}
    bounds = {each["list"]: each["interval"] for each in against if each["list"] in simple and each["interval"]}
    unsure = [name for name, span in bounds.items() if span[0] <= 0 <= span[1]]
    if not bounds:
        return ""
    if not unsure:
        return "Every difference is beyond chance (95 %)."
    if len(unsure) == len(bounds):
        return "No difference is beyond chance (95 %)."
    return f"These differences may be chance (95 %): from {'; from '.join(unsure)}."
