"""The job `candidates`: questions → what the recommender would have ranked for each, and what channels said of it.

Those at the origins themselves are asked: just before the next event a user's history is the same.
"""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.candidates import CHANNEL, CHANNEL_RANK, CHANNEL_SCORE, FITTED_AT
from feature_repo.contracts.channels import MISSING_SCORE
from feature_repo.contracts.datasets import ITEM_ID
from feature_repo.contracts.intervals import parse_cutoff
from feature_repo.contracts.list_policy import ListPolicy
from feature_repo.contracts.manifests import Candidates
from feature_repo.contracts.places import MANIFEST, Namespace
from feature_repo.contracts.publishing import (
    CorruptRecordError,
    damaged_file,
    file_sha256,
    inputs_id,
    publishing_directory,
    remove_abandoned,
)
from feature_repo.contracts.questions import QUESTION_ID, Asked, Role
from feature_repo.contracts.schemas import Schema
from feature_repo.contracts.signatures import pair_inputs, ranking
from feature_repo.locks import exclusive
from serving.lists.answering import Answering, channels_of
from serving.lists.errors import QuestionsError
from serving.lists.questions import find, load_questions
from serving.lists.quotas import fit_quotas, found_by_channels
from serving.recommender.pair_features import online_channels, plan_pairs
from serving.recommender.recall.asking import quotas_in_force

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from feature_repo.contracts.manifests import Questions
    from serving.lists.answering import Offer
    from serving.lists.questions import OriginQuestions
    from serving.recommender.pair_features import PairPlan
    from serving.recommender.settings import Settings
    from serving.recommender.snapshot import Snapshot

_LOG = logging.getLogger(__name__)

REVISION = 3
"""Raised by whoever changes how candidates are made from the same inputs."""
_QUESTIONS_AT_ONCE = 500
"""Questions whose rows are made into one table, and one row group."""
_STAMP = pa.timestamp("us", tz="UTC")
_SCHEMA = pa.schema(
    [
        pa.field(QUESTION_ID.name, pa.int64(), nullable=False),
        pa.field(ITEM_ID.name, pa.string(), nullable=False),
        pa.field(CHANNEL.name, pa.string(), nullable=False),
        pa.field(CHANNEL_SCORE.name, pa.float32()),
        pa.field(CHANNEL_RANK.name, pa.int64(), nullable=False),
        pa.field(FITTED_AT.name, _STAMP, nullable=False),
    ]
)
"""Of CANDIDATES, in Arrow's types."""


def candidates(settings: Settings, namespace: str, questions_id: str) -> dict[str, object]:
    """Write what would be ranked for every user at every origin, unless it is there; equal inputs give an equal id.

    Args:
        settings: Of the recommender: its quotas and how many candidates it ranks.
        namespace: The data set.
        questions_id: Which questions.

    Returns:
        The id, empty where no model can learn from the candidates; rows by file; why none can.

    Raises:
        QuestionsError: There are no such questions, or an origin has no snapshot that can be asked.
        UnansweredError: A channel failed.
        LockedError: Another job is writing candidates.
    """
    place = Namespace(settings.state, namespace)
    with exclusive(place.locks / "recalled.lock", f"candidates of namespace {namespace}"):
        remove_abandoned(place.recalled)
        questions, origins = load_questions(place, questions_id)
        asked = [origin for origin in origins if len(origin.users)]
        quotas = quotas_in_force(Schema.from_json(questions.schema), settings.recommender_quotas)
        name = inputs_id(
            {
                "revision": REVISION,
                "questions_id": questions_id,
                "ranked": settings.recommender_candidates,
                "quotas": quotas,
                "set": sorted(settings.recommender_quotas),
            }
        )
        directory = place.recalled / name
        if fault := damage(directory, namespace):
            _LOG.warning("candidates %s are written anew: %s", name, fault)
            shutil.rmtree(directory)
        if not directory.exists():
            with publishing_directory(directory) as part:
                _write(settings, place, questions, asked, quotas, part, name)
        note = _note(questions, asked, directory)
    record = Candidates.read(directory / MANIFEST)
    _LOG.info("candidates %s: %s", name, note or record.rows)
    return {"candidates": "" if note else name, "rows": record.rows, "note": note}


def damage(directory: Path, namespace: str) -> str:
    """Return in what stored candidates differ from what was written; nothing where they do not, or are not there."""
    if not directory.exists():
        return ""
    try:
        record = Candidates.read(directory / MANIFEST)
        if (record.namespace, record.candidates_id) != (namespace, directory.name):
            return f"expected {namespace} and {directory.name}, received {record.namespace} and {record.candidates_id}"
        return damaged_file(directory, record.checksums)
    except (OSError, ValueError, CorruptRecordError) as error:
        return str(error)


def every_pair(snapshot: Snapshot) -> PairPlan:
    """Return how a model reads all that the channels of a snapshot say.

    Raises:
        QuestionsError: A channel is of another definition than this code's: nobody could tell what its figures mean.
    """
    pairs = plan_pairs(ranking(snapshot.schema, tuple(pair_inputs(snapshot.schema))), snapshot)
    if unread := sorted(online_channels(snapshot).keys() - pairs.as_of.keys()):
        why = "; ".join(pairs.absent.get(name, f"channel {name}: this code does not know it") for name in unread)
        msg = f"snapshot as of {snapshot.manifest.cutoff}: {why}; run `python -m pipelines questions` with this code"
        raise QuestionsError(msg)
    return pairs


def _write(  # noqa: PLR0917 - with what, of which questions, by which shares, to where, under which name
    settings: Settings,
    place: Namespace,
    questions: Questions,
    origins: Sequence[OriginQuestions],
    quotas: Mapping[str, int],
    part: Path,
    name: str,
) -> None:
    """Write the file of every origin, and the manifest, into `part`."""
    rows: dict[str, int] = {}
    channels: set[str] = set()
    quotas = _fitted(settings, place, origins, quotas)
    for origin in origins:
        answering = Answering.at(settings, place, origin, ListPolicy(quotas))
        pairs = every_pair(answering.snapshot)
        _refuse_future(pairs, origin)
        offers = answering.offers(pairs, Asked.AT_ORIGIN)
        file = _file_of(origin)
        rows[file] = _write_offers(part / file, offers, pairs, origin.item_ids)
        channels.update(pairs.as_of)
        _LOG.info("%s origin %s: %d questions, %d rows", origin.role, origin.record["origin"], len(offers), rows[file])
    Candidates(
        candidates_id=name,
        namespace=place.name,
        schema=questions.schema,
        questions_id=questions.questions_id,
        ranked=settings.recommender_candidates,
        quotas={channel: quotas[channel] for channel in sorted(channels)},
        rows=rows,
        checksums={file: file_sha256(part / file) for file in rows},
    ).write(part / MANIFEST)


def _fitted(
    settings: Settings, place: Namespace, origins: Sequence[OriginQuestions], quotas: Mapping[str, int]
) -> Mapping[str, int]:
    """Return quotas as the validation origins' answers have them: what is learned from is what will be served."""
    asked = [
        (origin, Answering.at(settings, place, origin).recalled(Asked.AT_ORIGIN))
        for origin in origins
        if origin.role is Role.VALIDATION
    ]
    n = settings.recommender_candidates
    found = found_by_channels(asked, n)
    fitted = fit_quotas(found, quotas, n, settings.recommender_quotas)
    changed = {channel: share for channel, share in fitted.items() if share != quotas[channel]}
    _LOG.info("quotas by %d users: %s", len(found.counts), f"changed to {changed}" if changed else "as declared")
    return fitted


def _file_of(origin: OriginQuestions) -> str:
    return f"{origin.record['folder']}.parquet"


def _refuse_future(pairs: PairPlan, origin: OriginQuestions) -> None:
    """QuestionsError if a channel knows events from the origin on: a model would learn from the answers."""
    moment = origin.times[Asked.AT_ORIGIN][0]
    if late := {name: as_of for name, as_of in pairs.as_of.items() if parse_cutoff(as_of) > moment}:
        msg = (
            f"{origin.role} origin {origin.record['origin']}: expected channels that know events before it alone, "
            f"received {late}; run `python -m pipelines questions` again"
        )
        raise QuestionsError(msg)


def _write_offers(path: Path, offers: Mapping[int, Offer], pairs: PairPlan, item_ids: NDArray[np.str_]) -> int:
    """Write the rows of one origin in the order of CANDIDATES, some questions at a time; return how many there are."""
    ids, rows = sorted(offers), 0
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for start in range(0, len(ids), _QUESTIONS_AT_ONCE):
            chosen = ids[start : start + _QUESTIONS_AT_ONCE]
            table = _table(chosen, [offers[question] for question in chosen], pairs, item_ids)
            writer.write_table(table)
            rows += table.num_rows
    return rows


def _table(questions: Sequence[int], offers: Sequence[Offer], pairs: PairPlan, item_ids: NDArray[np.str_]) -> pa.Table:
    """Return rows of CANDIDATES: questions and the rows of an offer are in their order already."""
    names = channels_of(pairs)
    fitted = np.array([int(parse_cutoff(pairs.as_of[name]).timestamp()) * 1_000_000 for name in names], dtype=np.int64)
    channels = np.concatenate([offer.channels for offer in offers])
    scores = np.concatenate([offer.scores for offer in offers])
    counts = [len(offer.items) for offer in offers]
    columns = [
        pa.array(np.repeat(np.array(questions, dtype=np.int64), counts)),
        pa.array(item_ids, pa.string()).take(pa.array(np.concatenate([offer.items for offer in offers]))),
        pa.array(names, pa.string()).take(pa.array(channels)),
        pa.array(scores, mask=scores == np.float32(MISSING_SCORE)),
        pa.array(np.concatenate([offer.ranks for offer in offers]).astype(np.int64)),
        pa.array(fitted[channels]).cast(_STAMP),
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)


def _note(questions: Questions, origins: Sequence[OriginQuestions], directory: Path) -> str:
    """Say why no model can learn lists from candidates; nothing where one can."""
    reasons = []
    for role in (Role.TRAIN, Role.VALIDATION):
        own = [origin for origin in origins if origin.role is role]
        if not own:
            reasons.append(f"no {role} origin has a user to ask")
        elif not any(_has_answer(origin, directory / _file_of(origin)) for origin in own):
            reasons.append(f"no candidate of a {role} origin is an answer")
    if not reasons:
        return ""
    return "; ".join([f"lists cannot be learned from: {', and '.join(reasons)}", *filter(None, [questions.note])])


def _has_answer(origin: OriginQuestions, file: Path) -> bool:
    """Return whether a user liked any candidate in the days after the origin."""
    users = np.argsort(origin.ids[Asked.AT_ORIGIN])
    ids = origin.ids[Asked.AT_ORIGIN][users]
    items = np.intp(len(origin.item_ids))
    answers = (origin.answer_users * items + origin.answer_items)[origin.answer_items >= 0]
    for batch in pq.ParquetFile(file).iter_batches(columns=[QUESTION_ID.name, ITEM_ID.name]):
        owners = users[np.searchsorted(ids, batch.column(QUESTION_ID.name).to_numpy())]
        found = owners * items + find(origin.item_ids, batch.column(ITEM_ID.name))
        if np.isin(found, answers).any():
            return True
    return False
