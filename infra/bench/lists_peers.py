"""Simple lists and metrics beside independent libraries, in an environment of their own.

    uv run --no-project --isolated --with implicit==0.7.3 --with lenskit==2025.8.1 --with ir-measures==0.4.3 \
        python -m infra.bench.lists_peers <folder of a namespace> <questions id> <folder of an origin>

`implicit` makes ItemCF, `lenskit` EASE, `ir_measures` (trec_eval) the metrics. It prints how far each is from ours, and
ends with an error where it is farther than float32 and ties explain.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ir_measures
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from implicit.nearest_neighbours import CosineRecommender
from lenskit.data import Dataset, ItemList, RecQuery, from_interactions_df
from lenskit.knn import EASEScorer
from scipy import sparse

from feature_repo import list_metrics as metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIKED = 4.0
ITEM_CF, EASE = ("ItemCF", "shrinkage 0"), ("EASE", "λ 500")
K = 10
"""How many places are compared."""
_SCORE_ERROR, _METRIC_ERROR = 1e-3, 1e-9


def main(namespace: Path, questions: str, origin: str) -> None:
    """Compare, print, and exit with 1 where something differs."""
    folder = namespace / "questions" / questions / origin
    likes, seen = read_log(namespace, origin)
    lists = pq.read_table(folder / "simple_lists.parquet", partitioning=None)
    users = pq.read_table(folder / "questions.parquet", partitioning=None).column("user_id").unique().to_pylist()
    wrong = compare_lists("implicit's ItemCF", ITEM_CF, lists, implicit_scores(likes, users), seen)
    wrong += compare_lists("lenskit's EASE", EASE, lists, lenskit_scores(likes, users), seen)
    answers = pq.read_table(folder / "answers.parquet", partitioning=None)
    wrong += compare_metrics(own_lists(lists, EASE), answers)
    sys.exit(1 if wrong else 0)


def read_log(namespace: Path, origin: str) -> tuple[pa.Table, dict[str, set[str]]]:
    """Return user_id, item_id of the likes before the origin, each once, and what every user has an event with."""
    moment = datetime.strptime(origin, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    files = sorted((namespace / "lake" / "events").glob("*/*.parquet"))
    events = pa.concat_tables(pq.read_table(file, partitioning=None) for file in files)
    events = events.filter(pc.less(events.column("event_time"), pa.scalar(moment, pa.timestamp("us", tz="UTC"))))
    seen: dict[str, set[str]] = {}
    for user, item in zip(*(events.column(name).to_pylist() for name in ("user_id", "item_id")), strict=True):
        seen.setdefault(user, set()).add(item)
    liked = events.filter(pc.greater_equal(events.column("value"), LIKED))
    return liked.select(["user_id", "item_id"]).group_by(["user_id", "item_id"]).aggregate([]), seen


def implicit_scores(likes: pa.Table, users: list[str]) -> dict[str, dict[str, float]]:
    """Return each user's ItemCF score of every item: the sum of cosines with what the user liked."""
    owners, rows = np.unique(likes.column("user_id").to_numpy().astype(str), return_inverse=True)
    items, columns = np.unique(likes.column("item_id").to_numpy().astype(str), return_inverse=True)
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(owners), len(items)))
    model = CosineRecommender(K=len(items), num_threads=1)
    model.fit(matrix, show_progress=False)
    similarity = sparse.csr_matrix(model.similarity, copy=True)
    similarity.setdiag(0)
    places = {owner: place for place, owner in enumerate(owners.tolist())}
    return {
        user: dict(zip(items.tolist(), (matrix[places[user]] @ similarity).toarray()[0].tolist(), strict=True))
        for user in users
        if user in places
    }


def lenskit_scores(likes: pa.Table, users: list[str]) -> dict[str, dict[str, float]]:
    """Return each user's EASE score of every item."""
    data: Dataset = from_interactions_df(likes.to_pandas(), user_col="user_id", item_col="item_id")
    model = EASEScorer(regularization=float(EASE[1].removeprefix("λ ")))
    model.train(data)
    items = ItemList(item_ids=data.items.ids())
    found = {}
    for user in users:
        history = data.user_row(user)
        if history is not None:
            scored = model(query=RecQuery(user_id=user, user_items=history), items=items)
            found[user] = dict(zip(scored.ids().tolist(), scored.scores().tolist(), strict=True))
    return found


def own_lists(lists: pa.Table, variant: tuple[str, str]) -> dict[str, list[str]]:
    """Return user → our list of a variant."""
    chosen = pc.and_(pc.equal(lists.column("method"), variant[0]), pc.equal(lists.column("variant"), variant[1]))
    rows = lists.filter(chosen)
    return dict(zip(rows.column("user_id").to_pylist(), rows.column("items").to_pylist(), strict=True))


def compare_lists(
    what: str,
    variant: tuple[str, str],
    lists: pa.Table,
    scores: dict[str, dict[str, float]],
    seen: dict[str, set[str]],
) -> int:
    """Print how far the peer's scores of our first places are from its own best; return how many users differ."""
    ours, worst, differing = own_lists(lists, variant), 0.0, 0
    for user, peer in scores.items():
        best = sorted((value for item, value in peer.items() if item not in seen.get(user, ())), reverse=True)[:K]
        mine = [peer.get(item, float("-inf")) for item in ours[user][: len(best)]]
        gap = max((abs(one - other) for one, other in zip(best, mine, strict=True)), default=0.0)
        scale = max(abs(best[0]), 1e-9) if best else 1.0
        worst = max(worst, gap / scale)
        differing += gap / scale > _SCORE_ERROR
    print(f"{what}: {len(scores)} users, scores of the first {K} differ by {worst:.1e} of the best at most")  # noqa: T201
    return differing


def compare_metrics(lists: dict[str, list[str]], answers: pa.Table) -> int:
    """Print how far trec_eval's figures are from ours; return how many metrics differ."""
    wanted: dict[str, list[str]] = {}
    for user, item in zip(answers.column("user_id").to_pylist(), answers.column("item_id").to_pylist(), strict=True):
        wanted.setdefault(user, []).append(item)
    users, items = list(wanted), sorted({item for row in lists.values() for item in row})
    places = {item: place for place, item in enumerate(items)}
    shown = np.full((len(users), K), -1)
    for row, user in enumerate(users):
        own = lists[user][:K]
        shown[row, : len(own)] = [places[item] for item in own]
    owners = np.repeat(np.arange(len(users)), [len(wanted[user]) for user in users])
    positions = np.array([places.get(item, -1) for user in users for item in wanted[user]])
    counts = np.bincount(owners, minlength=len(users))
    found = metrics.hits(shown, owners, positions, len(items))
    possible = np.minimum(counts, K) / counts
    """trec_eval divides recall and average precision by all answers, also where they are more than the places."""
    peers: dict[str, tuple[NDArray[np.float64], NDArray[np.float64] | float]] = {
        "nDCG@10": (metrics.ndcg(found, counts, K), 1.0),
        "R@10": (metrics.recall(found, counts, K), possible),
        "AP@10": (metrics.average_precision(found, counts, K), possible),
        "RR@10": (metrics.reciprocal_rank(found, counts, K), 1.0),
        "Success@10": (metrics.hit_rate(found, counts, K), 1.0),
    }
    qrels = [ir_measures.Qrel(user, item, 1) for user in users for item in wanted[user]]
    run = [ir_measures.ScoredDoc(user, item, -float(rank)) for user in users for rank, item in enumerate(lists[user])]
    names = [ir_measures.parse_measure(name) for name in peers]
    theirs: dict[Any, dict[str, float]] = {str(name): {} for name in names}
    for figure in ir_measures.iter_calc(names, qrels, run):
        theirs[str(figure.measure)][figure.query_id] = figure.value
    differing = 0
    for name, (figures, scale) in peers.items():
        peer = np.array([theirs[name].get(user, 0.0) for user in users])
        gap = float(np.abs(figures * scale - peer).max())
        print(f"trec_eval's {name}: {len(users)} users, differs by {gap:.1e} at most")  # noqa: T201
        differing += gap > _METRIC_ERROR
    return differing


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
