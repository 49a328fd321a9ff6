"""Dated snapshots of item embeddings (`io.dated`). Each kind has a folder of its own, `embeddings/<kind>/`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from feature_repo.contracts.channels import channels
from feature_repo.contracts.embeddings import EMBEDDING_SIZE, ITEM_EMBEDDINGS, VECTOR
from feature_repo.contracts.manifests import Similarity, vectors_part
from feature_repo.contracts.publishing import read_json, write_json
from pipelines.errors import CorruptDatasetError, JobError
from pipelines.io.arrow import conform
from pipelines.io.dated import check_dated, dated_record, write_dated

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from feature_repo.contracts.embeddings import Embedding
    from feature_repo.contracts.manifests import Part
    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema

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
    folder = place.embeddings / kind.name
    path, sha256 = write_dated(folder, cutoff, rows)
    record = ItemEmbeddings(path.relative_to(place.root).as_posix(), sha256, rows.num_rows, sizes[0])
    write_json(dated_record(folder, cutoff), asdict(record))
    return record


def find_item_embeddings(place: Namespace, kind: Embedding, cutoff: datetime) -> ItemEmbeddings:
    """Return the snapshot of `cutoff`, after comparing the file with its checksum.

    Raises:
        JobError: none was fitted for this cutoff.
        CorruptDatasetError: the file is missing or has other bytes.
    """
    path = dated_record(place.embeddings / kind.name, cutoff)
    remedy = f"run `{WRITER}` for this cutoff"
    try:
        fields: dict[str, Any] = read_json(path)
        record = ItemEmbeddings(**fields)
    except FileNotFoundError as error:
        msg = f"{kind.name} of namespace {place.name}: expected {path}, found none; {remedy}"
        raise JobError(msg) from error
    except TypeError as error:
        msg = f"{path}: not a record of item embeddings ({error}); {remedy}"
        raise CorruptDatasetError(msg) from error
    check_dated(place.root / record.item_embeddings, record.sha256, remedy)
    return record
