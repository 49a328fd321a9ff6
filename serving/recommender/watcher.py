"""Follows the pointers while requests go on: loads beside what is in force, checks, warms up, then swaps.

Whatever cannot be loaded leaves what is in force where it is, and is shown by the readiness page. So does a snapshot or
a release that does not fit its counterpart, as vectors of a tower that is not released yet: the last pair that fitted
answers until the other half comes. Where there is none, or it may not wait (`release.may_wait`), the parts that lack
something are left out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from feature_repo.contracts.list_policy import DECLARED, ListPolicy
from feature_repo.contracts.manifests import Release, misfits
from feature_repo.contracts.places import Namespace, Serving
from feature_repo.contracts.publishing import CorruptRecordError
from feature_repo.contracts.signatures import RANKING_MODEL
from serving.recommender.engine import Engine, Online
from serving.recommender.errors import RankingError, ReleaseError, SnapshotError
from serving.recommender.release import Canary, RankingOff, RankingPlan, load_policy, may_wait, plan_ranking
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


@dataclass(frozen=True, slots=True)
class Released:
    """A release, and how it makes lists."""

    release: Release
    policy: ListPolicy


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
        self.release = Pointer(Serving(settings.state).current_release(settings.namespace))
        self.canary = Pointer(Serving(settings.state).canary_release(settings.namespace, RANKING_MODEL))
        self._canary_release: Release | None = None
        self._snapshot: Snapshot | None = None
        self._release: Released | None = None
        self.unfit = ""
        """Why what the pointers name does not fit together; empty if it does."""
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
        if self.snapshot.moved():
            self._snapshot = await asyncio.to_thread(self._load_snapshot, self._snapshot)
        if self.release.moved() or (online is None and self._snapshot is not None):
            self._release = await asyncio.to_thread(self._load_release, self._release)
        canary_moved = self.canary.moved()
        if canary_moved:
            self._canary_release = await asyncio.to_thread(self._load_canary)
        if self._snapshot is None:
            return
        wanted = self._pair(online, self._snapshot, self._release)
        snapshot, same = wanted.snapshot, online is not None and _same(online, wanted)
        # The same vectors' problem on the snapshot in force is no newer snapshot that failed.
        failed = bool(self.snapshot.problem) and self.snapshot.problem != snapshot.vectors_problem
        stale = failed or snapshot is not self._snapshot
        if online and same and not canary_moved and online.stale == stale:
            return
        wanted = replace(wanted, stale=stale, canary=self._plan_canary(snapshot))
        if same:
            self.online = wanted
        else:
            await self._swap(wanted)

    def _pair(self, online: Online | None, snapshot: Snapshot, released: Released | None) -> Online:
        """Return what to answer from: both of the latest if they fit, else the pair before, else what fits of them."""
        release, policy = (released.release, released.policy) if released is not None else (None, DECLARED)
        unfit = misfits(release, snapshot.manifest)
        reason = "; ".join(unfit.values())
        if reason != self.unfit:
            _log.warning("release and snapshot %s", f"do not fit: {reason}" if reason else "fit again")
            self.unfit = reason
        if unfit and online is not None and not online.unfit and may_wait(online.release, release):
            return online
        if online is not None and online.snapshot is snapshot and online.release is release:
            return online
        ranking = plan_ranking(release, snapshot)
        if isinstance(ranking, RankingPlan) and RANKING_MODEL in unfit:
            ranking = RankingOff(unfit[RANKING_MODEL])
        return Online(snapshot, release, ranking, policy=policy, unfit=unfit)

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
            return before if before is not None and not before.vectors_problem else snapshot
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

    def _load_release(self, before: Released | None) -> Released | None:
        try:
            release = Release.read(self.release.path)
            released = Released(release, load_policy(Serving(self._settings.state), release))
        except FileNotFoundError:
            self.release.failed(f"no release yet: {self.release.path} appears when model_rollout promotes a model")
            return before
        except (ReleaseError, CorruptRecordError, OSError) as error:
            self.release.failed(str(error))
            return before
        self.release.problem = ""
        return released


def _same(online: Online, other: Online) -> bool:
    """Tell whether both answer from the same, apart from a canary."""
    return online.snapshot is other.snapshot and online.release is other.release
