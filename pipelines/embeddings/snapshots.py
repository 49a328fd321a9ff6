"""Dated snapshots of item embeddings: written once under a name that says cutoff and content, and never changed.

Each kind has a folder of its own: `embeddings/<kind>/<cutoff>-<sha8>.parquet`, and `<cutoff>.json` beside it, which
says that this is the one of that cutoff.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.contracts.channels import channels
from feature_repo.contracts.embeddings import EMBEDDING_SIZE, ITEM_EMBEDDINGS, VECTOR
from feature_repo.contracts.manifests import Similarity, vectors_part
from feature_repo.contracts.places import cutoff_name
from feature_repo.contracts.publishing import file_sha256, read_json, remove_abandoned, replacing, write_json
from pipelines.errors import CorruptDatasetError, JobError
from pipelines.io.arrow import conform

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from feature_repo.contracts.embeddings import Embedding
    from feature_repo.contracts.manifests import Part
    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema

_HASH_LENGTH = 8
WRITER = "python -m pipelines embeddings"


@dataclass(frozen=True, slots=True)
class ItemEmbeddings:
    """Which snapshot of a kind belongs to a cutoff."""

    item_embeddings: str
    """Path of the Parquet file, relative to the namespace's folder."""
    sha256: str
    """Of the file's bytes."""
    items: int
    size: int = EMBEDDING_SIZE
    """Numbers of a vector; a record that does not say so is of when all had as many."""
    similarity: Similarity = Similarity.COSINE

    def part(self, name: str, cutoff: str, schema: Schema) -> Part:
        """Return it as a part of the snapshot of `cutoff`, with the definition of the channel of that name."""
        return vectors_part(
            name,
            cutoff,
            self.item_embeddings,
            self.sha256,
            self.size,
            Similarity(self.similarity),
            definition=channels(schema)[name].definition,
        )


def write_item_embeddings(place: Namespace, kind: Embedding, cutoff: datetime, rows: pa.Table) -> ItemEmbeddings:
    """Store `rows` as the snapshot of `cutoff`, and note beside it that this is the one; both by rename.

    Raises:
        JobError: The vectors are not all of one size.
    """
    rows = conform(rows, ITEM_EMBEDDINGS)
    sizes = pc.unique(pc.list_value_length(rows.column(VECTOR.name))).to_pylist() or [EMBEDDING_SIZE]
    if len(sizes) != 1:
        msg = f"{kind.name} of namespace {place.name}: expected vectors of one size, received {sorted(sizes)}; fit anew"
        raise JobError(msg)
    content = pa.BufferOutputStream()
    pq.write_table(rows, content, compression="zstd")
    data = content.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    path = place.embeddings / kind.name / f"{cutoff_name(cutoff)}-{sha256[:_HASH_LENGTH]}.parquet"
    remove_abandoned(path.parent)
    if not path.is_file() or file_sha256(path) != sha256:
        with replacing(path) as part:
            part.write_bytes(data)
    record = ItemEmbeddings(path.relative_to(place.root).as_posix(), sha256, rows.num_rows, sizes[0])
    write_json(_record(place, kind, cutoff), asdict(record))
    return record


def find_item_embeddings(place: Namespace, kind: Embedding, cutoff: datetime) -> ItemEmbeddings:
    """Return the snapshot of `cutoff`, after comparing the file with its checksum.

    Raises:
        JobError: none was fitted for this cutoff.
        CorruptDatasetError: the file is missing or has other bytes.
    """
    path = _record(place, kind, cutoff)
    try:
        fields: dict[str, Any] = read_json(path)
        record = ItemEmbeddings(**fields)
    except FileNotFoundError as error:
        msg = f"{kind.name} of namespace {place.name}: expected {path}, found none; run `{WRITER}` for this cutoff"
        raise JobError(msg) from error
    except TypeError as error:
        msg = f"{path}: not a record of item embeddings ({error}); run `{WRITER}` for this cutoff"
        raise CorruptDatasetError(msg) from error
    file = place.root / record.item_embeddings
    if not file.is_file() or file_sha256(file) != record.sha256:
        msg = f"{file}: expected SHA-256 {record.sha256}, received another or no file; run `{WRITER}` for this cutoff"
        raise CorruptDatasetError(msg)
    return record


def _record(place: Namespace, kind: Embedding, cutoff: datetime) -> Path:
    return place.embeddings / kind.name / f"{cutoff_name(cutoff)}.json"
