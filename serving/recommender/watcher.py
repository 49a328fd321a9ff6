"""Follows the pointers while requests go on: loads beside what is in force, checks, warms up, then swaps.

Whatever cannot be loaded leaves what is in force where it is, and is shown by the readiness page.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import Release
from feature_repo.contracts.places import Namespace, Serving
from feature_repo.contracts.publishing import CorruptRecordError
from feature_repo.contracts.signatures import RANKING_MODEL
from serving.recommender.engine import Engine, Online
from serving.recommender.errors import RankingError, SnapshotError
from serving.recommender.release import Canary, RankingPlan, plan_ranking
from serving.recommender.snapshot import Snapshot, load_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from serving.recommender.settings import Settings

_log = logging.getLogger(__name__)

_RETRY_S = 10.0
"""After this long, a pointer whose target could not be loaded is tried again although it has not moved."""
_WARM_UP_S = 2.0
"""How long a new pair of snapshot and release may take to warm up before it is used all the same."""


@dataclass(slots=True)
class Pointer:
    """A file that names what is in force, and what was seen of it last."""

    path: Path
    mark: tuple[int, int, int] | None = None
    """Modification time, inode and size: a pointer is replaced by a rename, so they change with it."""
    looked: bool = False
    problem: str = ""
    """Why its target could not be loaded; empty if it was."""
    failed_at: float = 0.0

    def moved(self) -> bool:
        """Tell whether it should be read: it changed, or it is time for another try. Asked once, answered once."""
        try:
            status = self.path.stat()
            mark = (status.st_mtime_ns, status.st_ino, status.st_size)
        except OSError:
            mark = None
        changed = not self.looked or mark != self.mark
        self.looked, self.mark = True, mark
        return changed or (bool(self.problem) and time.monotonic() - self.failed_at > _RETRY_S)

    def failed(self, problem: str) -> None:
        """Remember why the target could not be loaded."""
        if problem != self.problem:
            _log.warning("%s", problem)
        self.problem, self.failed_at = problem, time.monotonic()


class Watcher:
    """Keeps `online` up to date. Requests take the reference once, at their start.

    Args:
        settings: Where the pointers lie, and how often they are looked at.
        engine: What warms up before a swap.
        on_swap: Called after each swap.
    """

    def __init__(self, settings: Settings, engine: Engine, on_swap: Callable[[], None]) -> None:
        self._on_swap = on_swap
        self._settings = settings
        self._engine = engine
        self._place = Namespace(settings.state, settings.namespace)
        self.snapshot = Pointer(self._place.online_current)
        self.release = Pointer(Serving(settings.state).current_release(settings.namespace, RANKING_MODEL))
        self.canary = Pointer(Serving(settings.state).canary_release(settings.namespace, RANKING_MODEL))
        self._canary_release: Release | None = None
        self.online: Online | None = None

    async def run(self) -> None:
        """Look at the pointers for ever."""
        while True:
            await asyncio.sleep(self._settings.recommender_poll_seconds)
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - whatever nobody thought of, the next look may well succeed
                _log.exception("the look at the pointers failed")

    async def look(self) -> None:
        """Load what moved, and swap."""
        online = self.online
        snapshot = online.snapshot if online else None
        release = online.release if online else None
        if self.snapshot.moved():
            snapshot = await asyncio.to_thread(self._load_snapshot, snapshot)
        if self.release.moved() or (online is None and snapshot is not None):
            release = await asyncio.to_thread(self._load_release, release)
        canary_moved = self.canary.moved()
        if canary_moved:
            self._canary_release = await asyncio.to_thread(self._load_canary)
        if snapshot is None:
            return
        # The same vectors' problem on the snapshot in force is no newer snapshot that failed.
        stale = bool(self.snapshot.problem) and self.snapshot.problem != snapshot.vectors_problem
        if (
            online
            and not canary_moved
            and (online.snapshot, online.release, online.stale) == (snapshot, release, stale)
        ):
            return
        canary = self._plan_canary(snapshot)
        if online and online.snapshot is snapshot and online.release is release:
            self.online = Online(snapshot, release, online.ranking, stale, canary)
            return
        await self._swap(Online(snapshot, release, plan_ranking(release, snapshot), stale, canary))

    async def _swap(self, online: Online) -> None:
        ranking = online.ranking
        if isinstance(ranking, RankingPlan):
            try:
                await self._engine.try_ranking(online, self._settings.recommender_candidates, _WARM_UP_S)
            except RankingError as error:
                _log.warning("warm-up: %s", error)
        self.online = online
        self._on_swap()
        manifest = online.snapshot.manifest
        ranks = f"version {ranking.version}" if isinstance(ranking, RankingPlan) else f"nothing ({ranking.reason})"
        _log.info("answering from the snapshot of %s with %d items; ranks: %s", manifest.cutoff, manifest.items, ranks)

    def _load_snapshot(self, before: Snapshot | None) -> Snapshot | None:
        try:
            snapshot = load_snapshot(self._place)
        except FileNotFoundError:
            self.snapshot.failed(f"no snapshot yet: {self.snapshot.path} does not exist; run feature_refresh")
            return before
        except (SnapshotError, CorruptRecordError, OSError) as error:
            self.snapshot.failed(str(error))
            return before
        if snapshot.vectors_problem:
            self.snapshot.failed(snapshot.vectors_problem)
            # Half a snapshot is better than none, and worse than the whole one before.
            return before if before is not None and before.vectors is not None else snapshot
        self.snapshot.problem = ""
        return snapshot

    def _plan_canary(self, snapshot: Snapshot) -> Canary | None:
        if self._canary_release is None:
            return None
        plan = plan_ranking(self._canary_release, snapshot)
        if isinstance(plan, RankingPlan):
            _log.info("version %d is a canary: it gets a share of the requests as well", plan.version)
            return Canary(plan, self.canary.mark)
        _log.warning("the canary gets no requests: %s", plan.reason)
        return None

    def _load_canary(self) -> Release | None:
        """Return the Release of the canary; None where there is none, which is how it is most of the time."""
        try:
            release = Release.read(self.canary.path)
        except FileNotFoundError:
            release = None
        except (CorruptRecordError, OSError) as error:
            self.canary.failed(str(error))
            return None
        self.canary.problem = ""
        return release

    def _load_release(self, before: Release | None) -> Release | None:
        try:
            release = Release.read(self.release.path)
        except FileNotFoundError:
            self.release.failed(f"no release yet: {self.release.path} appears when model_rollout promotes a model")
            return before
        except (CorruptRecordError, OSError) as error:
            self.release.failed(str(error))
            return before
        self.release.problem = ""
        return release
