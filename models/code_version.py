"""Which code and which packages made a model: the commit, and the hash of the lock file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from feature_repo.contracts.publishing import file_sha256

_ROOT = Path(__file__).parent.parent
_COMMIT = "KESTREL_COMMIT"
"""What an image is told when it is built: it has no repository."""


def code_version() -> dict[str, str]:
    """Return `commit`, ending in `-dirty` where files differ from it, and `lock_sha256`; empty what nobody knows."""
    lock = _ROOT / "uv.lock"
    return {
        "commit": os.environ.get(_COMMIT, "") or _commit(),
        "lock_sha256": file_sha256(lock) if lock.is_file() else "",
    }


def _commit() -> str:
    # The repository's own folder, and none around it: what is unpacked inside another repository is no commit of that.
    if not (_ROOT / ".git").exists():
        return ""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
