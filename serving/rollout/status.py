"""What is served, since when, why, and whether server, pointer and registry agree."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from serving.rollout.agreement import disagreements, losses, observe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serving.rollout.agreement import Observed
    from serving.rollout.serving_model import ServingModel


def status(model: ServingModel) -> dict[str, object]:
    """Describe the model's release, server and registry; a part that does not answer is one of the problems.

    What MLflow no longer has is `lost`; that is no disagreement, for nothing mends it, and what serves serves on.
    """
    seen = observe(model)
    release, canary = seen.release, seen.canary
    problems = [*seen.silent, *disagreements(model, seen), *_unknown(model, seen)]
    return {
        "model": model.name,
        "version": release.version if release is not None else None,
        "run_id": release.run_id if release is not None else None,
        "since": _since(model.current_release_path) if release is not None else None,
        "why": release.verdict if release is not None else None,
        "promoted_why": model.promoted_why(release) if release is not None else None,
        "previous_version": release.previous_version if release is not None else None,
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
        "lost": losses(model, seen),
        "problems": problems,
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
