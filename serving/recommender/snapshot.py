"""Loads what an OnlineSnapshot points to, whole and checked, or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.channels import channels
from feature_repo.contracts.embeddings import EMBEDDINGS
from feature_repo.contracts.features import declared
from feature_repo.contracts.manifests import OnlineSnapshot, PartKind
from feature_repo.contracts.publishing import file_sha256
from feature_repo.contracts.schemas import Schema, SchemaError
from serving.recommender.catalogue import Catalogue, catalogue_from_table
from serving.recommender.channel_tables import ChannelTable, table_from_rows
from serving.recommender.embeddings import ItemVectors, vectors_from_table
from serving.recommender.errors import SnapshotError
from serving.recommender.user_features import UserLayout, user_layout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.questions import Audience


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One refresh of the online side, ready to answer from."""

    manifest: OnlineSnapshot
    schema: Schema
    catalogue: Catalogue
    vectors: Mapping[str, ItemVectors]
    """Kind of embedding → item vectors, of the kinds that could be loaded, in the order of their declaration."""
    vectors_problem: str
    """Why there are not the vectors of every kind; empty if there are."""
    layout: UserLayout
    tables: Mapping[str, ChannelTable] = field(default_factory=dict)
    """Fitted channel → its table, of those that could be loaded, in the order of their declaration."""
    table_problems: Mapping[str, str] = field(default_factory=dict)
    """Fitted channel → why it could not be loaded."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of embeddings that the manifest names, loaded or not, in the order of their declaration."""
        return _kinds(self.manifest)

    def best_list(self, audience: Audience, *, personal: bool = True) -> str | None:
        """Return the fitted channel whose own list did best on validation; None where none was measured.

        Args:
            audience: For whom.
            personal: Whether it may depend on what the user likes.
        """
        measured = {
            name: table.validation[audience]
            for name, table in self.tables.items()
            if audience in table.validation and (personal or not table.is_personal)
        }
        return max(measured, key=lambda name: measured[name], default=None)


def _kinds(manifest: OnlineSnapshot) -> tuple[str, ...]:
    vectors = manifest.of_kind(PartKind.VECTORS)
    known = tuple(kind for kind in EMBEDDINGS if kind in vectors)
    return known + tuple(kind for kind in vectors if kind not in known)


def load_snapshot(place: Namespace, pointer: Path | None = None) -> Snapshot:
    """Load the snapshot in force, or the one that another `pointer` names.

    Item vectors that are not what the manifest says leave a snapshot without them.

    Raises:
        SnapshotError: The catalogue is not what the manifest says, or the manifest belongs to another namespace.
        CorruptRecordError: The manifest cannot be read.
        FileNotFoundError: There is none yet.
    """
    pointer = pointer or place.online_current
    manifest = OnlineSnapshot.read(pointer)
    if manifest.namespace != place.name:
        msg = f"{pointer}: expected namespace {place.name}, received {manifest.namespace}; publish again"
        raise SnapshotError(msg)
    schema = _schema(manifest, str(pointer))
    declaration = declared(schema)
    absent = [group.name for group in declaration.users if group.name not in manifest.views]
    if absent:
        msg = f"{pointer}: expected views of the users, {absent} are missing; publish again"
        raise SnapshotError(msg)
    path = place.root / manifest.catalogue.path
    catalogue = catalogue_from_table(_read_checked(path, manifest.catalogue.checksum), declaration, str(path))
    vectors, problems = _load_vectors(place, manifest, catalogue)
    layout = user_layout(manifest, declaration)
    tables, absent_tables = _load_tables(place, manifest, catalogue, tuple(channels(schema)))
    return Snapshot(manifest, schema, catalogue, vectors, "; ".join(problems), layout, tables, absent_tables)


def _schema(manifest: OnlineSnapshot, source: str) -> Schema:
    try:
        return Schema.from_json(manifest.schema)
    except SchemaError as error:
        msg = f"{source}: {error}; publish again"
        raise SnapshotError(msg) from error


def _load_vectors(
    place: Namespace, manifest: OnlineSnapshot, catalogue: Catalogue
) -> tuple[dict[str, ItemVectors], list[str]]:
    vectors: dict[str, ItemVectors] = {}
    problems: list[str] = []
    for kind in _kinds(manifest):
        part = manifest.parts[kind]
        path = place.root / part.path
        try:
            vectors[kind] = vectors_from_table(_read_checked(path, part.checksum), catalogue, part, str(path))
        except SnapshotError as error:
            problems.append(str(error))
    return vectors, problems


def _load_tables(
    place: Namespace, manifest: OnlineSnapshot, catalogue: Catalogue, declared_order: tuple[str, ...]
) -> tuple[dict[str, ChannelTable], dict[str, str]]:
    tables: dict[str, ChannelTable] = {}
    problems: dict[str, str] = {}
    parts = manifest.of_kind(PartKind.CHANNEL)
    for name in (*(name for name in declared_order if name in parts), *sorted(parts.keys() - set(declared_order))):
        path = place.root / parts[name].path
        try:
            rows = _read_checked(path, parts[name].checksum)
            tables[name] = table_from_rows(rows, catalogue, parts[name], str(path))
        except SnapshotError as error:
            problems[name] = str(error)
    return tables, problems


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
