"""Loads questions: arrays whose items are positions in the catalogue of their origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import list_metrics
from feature_repo.contracts.datasets import ITEM_ID, USER_ID
from feature_repo.contracts.manifests import Questions
from feature_repo.contracts.places import MANIFEST
from feature_repo.contracts.publishing import CorruptRecordError, file_sha256
from feature_repo.contracts.questions import (
    ANSWERS_FILE,
    ASKED,
    ASKED_TIME,
    CATALOGUE_FILE,
    HISTORY,
    LIST_DEPTH,
    METHOD,
    QUESTION_ID,
    QUESTIONS_FILE,
    SIMPLE_LISTS_FILE,
    SNAPSHOT_FILE,
    USER_FIELDS_FILE,
    VARIANT,
    Asked,
    Role,
)
from serving.lists.errors import QuestionsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from numpy.typing import NDArray

    from feature_repo.contracts.places import Namespace

Variant = tuple[str, str]
"""(method, parameters) of a simple list."""


@dataclass(frozen=True, slots=True)
class OriginQuestions:
    """The questions of one origin. Every user is asked once for each value of `Asked` that the origin has."""

    record: Mapping[str, Any]
    """The origin, as the manifest has it."""
    folder: Path
    item_ids: NDArray[np.str_]
    """`[items]`, ascending: the order of the catalogue."""
    users: NDArray[np.str_]
    """`[users]`, who is asked, ascending."""
    history: NDArray[np.int64]
    """`[users]`, how many events before the origin."""
    times: Mapping[Asked, list[datetime]]
    """When each user is asked."""
    ids: Mapping[Asked, NDArray[np.int64]]
    """`[users]`, the questions' ids."""
    answer_users: NDArray[np.intp]
    """`[answers]`, whose: places in `users`."""
    answer_items: NDArray[np.intp]
    """`[answers]`, positions in the catalogue; -1 for an item that the catalogue does not have."""
    answer_ids: NDArray[np.str_]
    """`[answers]`, the items' ids."""
    is_new: NDArray[np.bool_]
    """`[answers]`, whether nobody had an event with the item before the origin."""

    @property
    def role(self) -> Role:
        """What the origin is for."""
        return Role(self.record["role"])

    @property
    def answer_counts(self) -> NDArray[np.int64]:
        """`[users]`, how many answers each has: one or more."""
        return np.bincount(self.answer_users, minlength=len(self.users))

    def hits(self, lists: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return `[users, depth]`, which places of the users' lists hold an answer."""
        return list_metrics.hits(lists, self.answer_users, self.answer_items, len(self.item_ids))

    def figures(self, lists: NDArray[np.intp]) -> dict[str, NDArray[np.float64]]:
        """Return metric → `[users]`, how good the users' lists are."""
        return list_metrics.by_question(self.hits(lists), self.answer_counts)

    def simple_lists(self) -> dict[Variant, NDArray[np.intp]]:
        """Return the list of every variant, `[users, LIST_DEPTH]`: positions, -1 where a list ends sooner."""
        table = pq.read_table(self.folder / SIMPLE_LISTS_FILE, partitioning=None)
        methods, variants = (table.column(name).to_numpy() for name in (METHOD.name, VARIANT.name))
        lists = table.column("items").combine_chunks()
        positions = find(self.item_ids, lists.flatten())
        places = np.searchsorted(self.users, table.column(USER_ID.name).to_numpy().astype(np.str_))
        found: dict[Variant, NDArray[np.intp]] = {}
        offsets = lists.offsets.to_numpy()
        columns = np.arange(len(positions)) - np.repeat(offsets[:-1], np.diff(offsets))
        rows = np.repeat(np.arange(len(lists)), np.diff(offsets))
        whole = np.full((len(lists), LIST_DEPTH), -1, dtype=np.intp)
        whole[rows, columns] = positions
        for variant in dict.fromkeys(zip(methods.tolist(), variants.tolist(), strict=True)):
            chosen = np.flatnonzero((methods == variant[0]) & (variants == variant[1]))
            found[variant] = np.full((len(self.users), LIST_DEPTH), -1, dtype=np.intp)
            found[variant][places[chosen]] = whole[chosen]
        return found

    def stored_fields(self, asked: Asked) -> dict[str, dict[bytes, bytes]]:
        """Return user → field → what Redis would hold at the moment of the question."""
        table = pq.read_table(self.folder / USER_FIELDS_FILE, partitioning=None)
        fields: dict[int, dict[bytes, bytes]] = {}
        columns = (table.column(name).to_pylist() for name in (QUESTION_ID.name, "field", "stored"))
        for question, field, stored in zip(*columns, strict=True):
            fields.setdefault(question, {})[field] = stored
        return {
            user: fields.get(question, {})
            for user, question in zip(self.users.tolist(), self.ids[asked].tolist(), strict=True)
        }

    @property
    def snapshot_pointer(self) -> Path:
        """The OnlineSnapshot as of the origin."""
        return self.folder / SNAPSHOT_FILE


def find(item_ids: NDArray[np.str_], wanted: pa.Array | pa.ChunkedArray) -> NDArray[np.intp]:
    """Return the positions of ids among ascending ones; -1 for one that is not there."""
    coded = wanted.dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    names = coded.dictionary.to_numpy(zero_copy_only=False).astype(np.str_)
    if not len(names) or not len(item_ids):
        return np.full(len(wanted), -1, dtype=np.intp)
    places = np.minimum(np.searchsorted(item_ids, names), len(item_ids) - 1)
    positions = np.where(item_ids[places] == names, places, -1)
    found: NDArray[np.intp] = positions[coded.indices.to_numpy()]
    return found


def load_questions(place: Namespace, questions_id: str) -> tuple[Questions, list[OriginQuestions]]:
    """Load what the data plane wrote, after comparing every file with its checksum.

    Raises:
        QuestionsError: There are no such questions, or they are not what their manifest says.
    """
    directory = place.questions / questions_id
    remedy = "run `python -m pipelines questions` again, which writes damaged ones anew"
    try:
        record = Questions.read(directory / MANIFEST)
    except (OSError, ValueError, CorruptRecordError) as error:
        msg = f"questions {questions_id}: expected {directory / MANIFEST}, received {error}; {remedy}"
        raise QuestionsError(msg) from error
    if record.namespace != place.name:
        msg = f"{directory}: expected questions of namespace {place.name}, received {record.namespace}; name others"
        raise QuestionsError(msg)
    for name, expected in record.checksums.items():
        file = directory / name
        received = file_sha256(file) if file.is_file() else "no file"
        if received != expected:
            msg = f"{file}: expected SHA-256 {expected}, received {received}; {remedy}"
            raise QuestionsError(msg)
    return record, [_load(directory / str(each["folder"]), each) for each in record.origins]


def _load(folder: Path, record: Mapping[str, Any]) -> OriginQuestions:
    questions = pq.read_table(folder / QUESTIONS_FILE, partitioning=None)
    catalogue = pq.read_table(folder / CATALOGUE_FILE, columns=[ITEM_ID.name], partitioning=None)
    answers = pq.read_table(folder / ANSWERS_FILE, partitioning=None)
    kinds = questions.column(ASKED.name).to_numpy().astype(np.str_)
    names = questions.column(USER_ID.name).to_numpy().astype(np.str_)
    users, first = np.unique(names, return_index=True)
    item_ids = np.sort(catalogue.column(ITEM_ID.name).to_numpy().astype(np.str_))
    times = questions.column(ASKED_TIME.name).to_pylist()
    ids = questions.column(QUESTION_ID.name).to_numpy()
    rows = {asked: np.flatnonzero(kinds == asked.value) for asked in Asked}
    rows = {asked: found[np.argsort(names[found])] for asked, found in rows.items()}
    return OriginQuestions(
        record=record,
        folder=folder,
        item_ids=item_ids,
        users=users,
        history=questions.column(HISTORY.name).to_numpy()[first],
        times={asked: [times[row] for row in found] for asked, found in rows.items()},
        ids={asked: ids[found] for asked, found in rows.items()},
        answer_users=np.searchsorted(users, answers.column(USER_ID.name).to_numpy().astype(np.str_)),
        answer_items=find(item_ids, answers.column(ITEM_ID.name)),
        answer_ids=answers.column(ITEM_ID.name).to_numpy().astype(np.str_),
        is_new=answers.column("is_new").to_numpy() == 1,
    )
