"""Loads what an OnlineSnapshot points to, whole and checked, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.features import declared
from feature_repo.contracts.manifests import OnlineSnapshot
from feature_repo.contracts.publishing import file_sha256
from feature_repo.contracts.schemas import Schema, SchemaError
from serving.recommender.catalogue import Catalogue, catalogue_from_table
from serving.recommender.embeddings import ItemVectors, vectors_from_table
from serving.recommender.errors import SnapshotError
from serving.recommender.user_features import UserLayout, user_layout

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.places import Namespace


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One refresh of the online side, ready to answer from."""

    manifest: OnlineSnapshot
    schema: Schema
    catalogue: Catalogue
    vectors: ItemVectors | None
    """None where the item vectors could not be loaded."""
    vectors_problem: str
    """Why there are no item vectors; empty if there are."""
    layout: UserLayout


def load_snapshot(place: Namespace) -> Snapshot:
    """Load the snapshot in force. Item vectors that are not what the manifest says leave a snapshot without them.

    Raises:
        SnapshotError: The catalogue is not what the manifest says, or the manifest belongs to another namespace.
        CorruptRecordError: The manifest cannot be read.
        FileNotFoundError: There is none yet.
    """
    manifest = OnlineSnapshot.read(place.online_current)
    if manifest.namespace != place.name:
        msg = f"{place.online_current}: expected namespace {place.name}, received {manifest.namespace}; publish again"
        raise SnapshotError(msg)
    schema = _schema(manifest, str(place.online_current))
    declaration = declared(schema)
    absent = [group.name for group in declaration.users if group.name not in manifest.views]
    if absent:
        msg = f"{place.online_current}: expected views of the users, {absent} are missing; publish again"
        raise SnapshotError(msg)
    path = place.root / manifest.catalogue
    catalogue = catalogue_from_table(_read_checked(path, manifest.catalogue_sha256), declaration, str(path))
    vectors, problem = _load_vectors(place, manifest, catalogue)
    return Snapshot(manifest, schema, catalogue, vectors, problem, user_layout(manifest, declaration))


def _schema(manifest: OnlineSnapshot, source: str) -> Schema:
    try:
        return Schema.from_json(manifest.schema)
    except SchemaError as error:
        msg = f"{source}: {error}; publish again"
        raise SnapshotError(msg) from error


def _load_vectors(place: Namespace, manifest: OnlineSnapshot, catalogue: Catalogue) -> tuple[ItemVectors | None, str]:
    path = place.root / manifest.item_embeddings
    try:
        table = _read_checked(path, manifest.item_embeddings_sha256)
        return vectors_from_table(table, catalogue, str(path)), ""
    except SnapshotError as error:
        return None, str(error)


def _read_checked(path: Path, sha256: str) -> pa.Table:
    try:
        received = file_sha256(path)
        if received != sha256:
            msg = f"{path}: expected SHA-256 {sha256}, received {received}; publish again"
            raise SnapshotError(msg)
        return pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        msg = f"{path}: expected the Parquet file that the manifest names, received {error}; publish again"
        raise SnapshotError(msg) from error
