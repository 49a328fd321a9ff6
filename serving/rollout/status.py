"""What is served, since when, why, and whether server, pointer and registry agree."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from serving.rollout.agreement import disagreements, losses, observe, release_disagreements
from serving.rollout.switching import check_records, members

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from feature_repo.contracts.manifests import Release
    from serving.rollout.agreement import Observed
    from serving.rollout.serving_model import ServingModel


def status(model: ServingModel) -> dict[str, object]:
    """Describe the release in force, server and registry; who does not answer is one of the problems.

    The fields of one model are those of `model`; `parts` has every part of the release. What MLflow no longer has is
    `lost`; that is no disagreement, for nothing mends it, and what serves serves on.
    """
    check_records(model)
    observed = [(one, observe(one)) for one in members(model)]
    (seen,) = (own for one, own in observed if one.part == model.part)
    release, part, canary = seen.release, seen.current, seen.canary
    silent = dict.fromkeys(word for _, own in observed for word in own.silent)
    faults = [fault for one, own in observed for fault in disagreements(one, own)]
    problems = [*silent, *release_disagreements(model, seen), *faults, *_unknown(model, seen)]
    return {
        "model": model.name,
        "version": part.version if part is not None else None,
        "run_id": part.run_id if part is not None else None,
        "since": _since(model.current_release_path) if release is not None else None,
        "why": release.why if release is not None else None,
        "promoted_why": model.promoted_why(release) if release is not None else None,
        "previous_version": (seen.before.version if seen.before is not None else "") if part is not None else None,
        "release": release.number if release is not None else None,
        "previous_release": release.previous if release is not None else None,
        "parts": _parts(release) if release is not None else {},
        "candidate": str(seen.under_test) if seen.under_test is not None else None,
        "canary": {"version": canary.version, "run_id": canary.run_id, "since": _since(model.canary_release_path)}
        if canary is not None
        else None,
        "pending": asdict(seen.pending) if seen.pending is not None else None,
        "configured": sorted(seen.configured),
        "labels": dict(seen.labels),
        "server": [asdict(one) for one in seen.server or ()],
        "aliases": dict(seen.aliases or {}),
        "agree": not problems,
        "lost": [loss for one, own in observed for loss in losses(one, own)],
        "problems": problems,
    }


def _parts(release: Release) -> dict[str, dict[str, str]]:
    """Return name → each part of a release, and its version in the release before."""
    return {
        name: {
            "kind": part.kind.value,
            "version": part.version,
            "previous_version": release.previous_parts[name].version if name in release.previous_parts else "",
            "checksum": part.checksum,
            "run_id": part.run_id,
        }
        for name, part in release.parts.items()
    }


def _unknown(model: ServingModel, seen: Observed) -> Iterator[str]:
    """Say so where nobody has heard of the model: of a name that is mistyped everybody agrees."""
    known = (seen.release, seen.candidate, seen.configured, seen.server, seen.aliases)
    if not any(known) and not seen.silent:
        yield f"{model.name}: no release, no version on the server, no alias in the registry; is the namespace right?"


def _since(path: Path) -> str | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except FileNotFoundError:  # it ended a moment ago
        return None
