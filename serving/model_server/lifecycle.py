"""The life of a version, and which versions a policy aspires to. Pure: no clock, no threads, no TensorFlow.

START ──load──▶ LOADING ──▶ AVAILABLE ──▶ UNLOADING ──▶ END
                   └──────── failed ────────────────────▶ END with an error
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from serving.model_server.model_config import PolicyKind, VersionPolicy

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path


class State(IntEnum):
    """The numbers of ModelVersionStatus.State."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


LIVE = frozenset({State.START, State.LOADING, State.AVAILABLE})
"""In these states a version need not be started."""

_LARGEST_VERSION = 2**63 - 1


def versions_on_disk(base_path: Path) -> dict[int, Path]:
    """Return version → folder for the children of `base_path` that are named by a number; FileNotFoundError if none.

    Two names of the same number (`7` and `007`) are one version: the plain one.
    """
    found: dict[int, Path] = {}
    for child in sorted(base_path.iterdir(), key=lambda child: (len(child.name), child.name), reverse=True):
        if child.name.isascii() and child.name.isdigit() and int(child.name) <= _LARGEST_VERSION:
            found[int(child.name)] = child
    return found


def aspired(policy: VersionPolicy, on_disk: Collection[int]) -> frozenset[int]:
    """Return the versions that should be served."""
    match policy.kind:
        case PolicyKind.ALL:
            return frozenset(on_disk)
        case PolicyKind.SPECIFIC:
            return policy.versions & frozenset(on_disk)
        case PolicyKind.LATEST:
            return frozenset(sorted(on_disk, reverse=True)[: policy.count])


def to_unload(aspired_versions: Collection[int], states: Mapping[int, State]) -> list[int]:
    """Return the AVAILABLE versions to unload now.

    A version that is no longer wanted goes only once one that is wanted is AVAILABLE: a broken or slow successor never
    takes a good version away. If none is wanted at all, all go.
    """
    served = any(states.get(version) is State.AVAILABLE for version in aspired_versions)
    if aspired_versions and not served:
        return []
    return [
        version for version, state in states.items() if state is State.AVAILABLE and version not in aspired_versions
    ]
