"""Releases and snapshots that tests put together: the shortest way to say what differs."""

from __future__ import annotations

import dataclasses
from typing import Any

from feature_repo.contracts.manifests import OnlineSnapshot, Part, PartKind, Release, catalogue_part, views_part
from feature_repo.contracts.signatures import RANKING_MODEL

_FIELDS = frozenset(field.name for field in dataclasses.fields(Part))


def ranker_part(version: str = "1", **changes: Any) -> Part:
    """Return a ranker that reads nothing; `changes` are fields of the part, or of its data."""
    data: dict[str, Any] = {"views": {}, "inputs": [], "training_set_id": "made-up", "cutoff": "1998-04-23T00:00:00Z"}
    data |= {name: value for name, value in changes.items() if name not in _FIELDS}
    fields = {name: value for name, value in changes.items() if name in _FIELDS}
    name = fields.pop("name", RANKING_MODEL)
    given: dict[str, Any] = {"checksum": "0" * 64, "run_id": "run", "data": data} | fields
    return Part(name, PartKind.RANKER, version, **given)


def release_of(
    namespace: str, *parts: Part, number: int = 0, previous: Release | None = None, why: str = ""
) -> Release:
    """Return a release of `parts`, which bears its ranker's number unless another is given."""
    named = {part.name: part for part in parts}
    before = (previous.number, previous.parts) if previous is not None else (0, {})
    return Release(namespace, number or int(named[RANKING_MODEL].version), named, *before, why)


def with_ranker(release: Release, **changes: Any) -> Release:
    """Return a release whose ranker differs in fields of the part, or of its data."""
    ranker = release.ranker
    data = ranker.data | {name: value for name, value in changes.items() if name not in _FIELDS}
    fields = {name: value for name, value in changes.items() if name in _FIELDS}
    part = dataclasses.replace(ranker, data=data, **fields)
    return dataclasses.replace(release, parts=release.parts | {RANKING_MODEL: part})


def snapshot_of(
    namespace: str, schema: dict[str, Any], views: dict[str, str], *parts: Part, cutoff: str = "1998-04-23T00:00:00Z"
) -> OnlineSnapshot:
    """Return a snapshot with these views, and a catalogue that is nowhere unless `parts` have one."""
    catalogue = catalogue_part(cutoff, "online/19980423T000000Z-00000000/catalogue.parquet", "0" * 64)
    every = {part.name: part for part in (catalogue, views_part(cutoff, views), *parts)}
    return OnlineSnapshot(namespace, schema, cutoff, "made_up", users=1, items=1, parts=every)


def release_of_before(release: Release) -> dict[str, Any]:
    """Return a release of one ranker as the formats 0 and 1 had it, without the format."""
    ranker = release.ranker
    inputs = [each["name"] for each in ranker.signature.get("inputs", [])]
    return (
        {"inputs": inputs}
        | ranker.data
        | {
            "namespace": release.namespace,
            "model": ranker.name,
            "version": ranker.version,
            "run_id": ranker.run_id,
            "saved_model_sha256": ranker.checksum,
            "verdict": release.why,
            "previous_version": str(release.previous or ""),
        }
    )


def snapshot_of_before(snapshot: OnlineSnapshot) -> dict[str, Any]:
    """Return a snapshot of catalogue, views and vectors as the formats 0 and 1 had it, without the format."""
    vectors = snapshot.of_kind(PartKind.VECTORS)
    assert all(part.data.items() >= {"size": 32, "similarity": "cosine"}.items() for part in vectors.values())
    return {name: getattr(snapshot, name) for name in ("namespace", "schema", "cutoff", "feast_project")} | {
        "views": snapshot.views,
        "catalogue": snapshot.catalogue.path,
        "catalogue_sha256": snapshot.catalogue.checksum,
        "item_embeddings": {name: part.path for name, part in vectors.items()},
        "item_embeddings_sha256": {name: part.checksum for name, part in vectors.items()},
        "users": snapshot.users,
        "items": snapshot.items,
    }
