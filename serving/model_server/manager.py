"""Loads and unloads versions as configuration and folders say, and finds the version that a request means.

One lock guards what is aspired to and every state. Each load has a thread of its own, so that a broken version waiting
for its next try holds nobody up; a semaphore limits how many load at the same time. Readers take no lock: they see an
immutable snapshot, replaced whenever a state changes.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from grpc import StatusCode

from serving.model_server.errors import ServingError, failed_precondition, invalid, not_found
from serving.model_server.lifecycle import LIVE, State, aspired, to_unload, versions_on_disk
from serving.model_server.model_config import entries_of
from serving.model_server.servable import Servable
from serving.model_server.warmup import warm_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tensorflow_serving.config import model_server_config_pb2

    from serving.model_server.model_config import ModelEntry
    from serving.model_server.servable import Loading

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How versions are loaded."""

    loading: Loading
    retries: int
    retry_interval_s: float
    threads: int
    labels_for_unavailable: bool
    warmup_iterations: int = 1
    """How often each warm-up record is replayed; 0 replays none."""


@dataclass(slots=True)
class Version:
    """One version of a model, from START to END; guarded by the manager's lock."""

    number: int
    path: Path
    state: State = State.START
    error: ServingError | None = None
    servable: Servable | None = None
    attempted: bool = False
    """Whether the first try to load it is over."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when nobody wants it any more: no further tries."""

    @property
    def may_start_anew(self) -> bool:
        """A version that ended is loaded again if it is wanted again; one that failed, only after it was given up."""
        return self.state is State.END and (self.error is None or self.cancelled.is_set())


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """What GetModelStatus tells of a version."""

    version: int
    state: State
    error: ServingError | None


@dataclass(frozen=True, slots=True)
class _Served:
    """What requests see of a model."""

    newest: Servable | None
    versions: Mapping[int, Servable]
    labels: Mapping[str, int]


@dataclass(slots=True)
class _Model:
    name: str
    versions: dict[int, Version] = field(default_factory=dict)
    aspired: dict[int, Path] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


class Manager:
    """The models of one server."""

    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._changed = threading.Condition(threading.RLock())
        self._reload = threading.Lock()
        self._slots = threading.Semaphore(max(1, options.threads))
        self._models: dict[str, _Model] = {}
        self._entries: dict[str, ModelEntry] = {}
        self._wanted: dict[str, ModelEntry] = {}
        """While a reload waits for what is new: what it asks for, on top of `_entries`."""
        self._served: Mapping[str, _Served] = MappingProxyType({})
        self._closed = False

    # What requests ask for

    @contextmanager
    def leased(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Servable]:
        """Hold the servable that a request means until the block ends.

        Raises:
            ServingError: NOT_FOUND if it is not AVAILABLE, INVALID_ARGUMENT for an unknown label.
        """
        servable = self._lease(name, version, label)
        try:
            yield servable
        finally:
            servable.release()

    def _lease(self, name: str, version: int | None, label: str | None) -> Servable:
        if not name:
            msg = "ModelSpec has no name specified."
            raise invalid(msg)
        while True:
            served = self._served.get(name)
            wanted = version
            if label is not None:
                wanted = served.labels.get(label) if served is not None else None
                if wanted is None:
                    msg = f"Unrecognized servable version label: {label}"
                    raise invalid(msg)
            servable = None
            if served is not None:
                servable = served.newest if wanted is None else served.versions.get(wanted)
            if servable is None:
                what = f"Latest({name})" if wanted is None else f"Specific({name}, {wanted})"
                msg = f"Servable not found for request: {what}"
                raise not_found(msg)
            if servable.lease():
                return servable

    def status(self, name: str, version: int | None = None) -> tuple[VersionStatus, ...]:
        """Return the model's versions, newest first, those that ended included.

        Raises:
            ServingError: NOT_FOUND if the model, or that version of it, was never there.
        """
        with self._changed:
            model = self._models.get(name)
            versions = sorted(model.versions.items(), reverse=True) if model is not None else []
            found = tuple(
                VersionStatus(number, one.state, one.error)
                for number, one in versions
                if version is None or number == version
            )
        if found:
            return found
        if version is None:
            msg = f"Could not find any versions of model {name}"
            raise not_found(msg)
        msg = f"Could not find version {version} of model {name}"
        raise not_found(msg)

    # What is to be served

    def start(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Take the first configuration. Its labels may name versions that are still to be loaded.

        Raises:
            ServingError: It is wrong.
        """
        self.reload(config, wait=False, check_labels=False)

    def reload(
        self, config: model_server_config_pb2.ModelServerConfig, *, wait: bool = True, check_labels: bool = True
    ) -> None:
        """Serve what `config` names, and nothing else: load what is new, then unload what is gone.

        With `wait` it is all or nothing: unless every model of `config` has an AVAILABLE version in the end, the old
        configuration stays in force. Without it (at the start, and for the polled file) what can be loaded is.

        Raises:
            ServingError: Nothing has changed.
        """
        with self._reload:
            entries = entries_of(config, self._entries)
            if check_labels:
                with self._changed:
                    for entry in entries.values():
                        self._check_labels(entry)
            if wait:
                self._load_beside(entries)
            with self._changed:
                self._entries, self._wanted = entries, {}
                for name, model in self._models.items():
                    if name not in entries:
                        model.labels = MappingProxyType({})
                for name, entry in entries.items():
                    self._model(name).labels = entry.labels
            self.poll()
        log.info("serving %s", sorted(entries) or "no model")

    def _load_beside(self, entries: dict[str, ModelEntry]) -> None:
        """Load what `entries` want beside what is served, until every model has an AVAILABLE version.

        Raises:
            ServingError: One has none; what was loaded for nothing is unloaded again.
        """
        for entry in entries.values():
            _check_base_path(entry)
        with self._changed:
            self._wanted = entries
        self.poll()
        unavailable = self._await_settled(entries)
        if unavailable:
            with self._changed:
                self._wanted = {}
            self.poll()
            msg = f"Some models did not become available: {{{', '.join(unavailable)}}}"
            raise ServingError(StatusCode.UNKNOWN, msg)

    def _check_labels(self, entry: ModelEntry) -> None:
        model = self._models.get(entry.name)
        for label, version in entry.labels.items():
            one = model.versions.get(version) if model is not None else None
            if one is not None and one.state is State.AVAILABLE:
                continue
            moved = model is not None and model.labels.get(label, version) != version
            if moved or not self._options.labels_for_unavailable:
                msg = (
                    f"Request to assign label to version {version} of model {entry.name}, which is not currently "
                    "available for inference"
                )
                raise failed_precondition(msg)

    def _await_settled(self, entries: Mapping[str, ModelEntry]) -> list[str]:
        """Wait until every aspired version is AVAILABLE or was tried; return the models without an AVAILABLE one."""

        def settled() -> bool:
            return self._closed or all(
                one.state is State.AVAILABLE or one.attempted
                for name in entries
                for number, one in self._model(name).versions.items()
                if number in self._model(name).aspired
            )

        with self._changed:
            self._changed.wait_for(settled)
            return [
                name
                for name in entries
                if not any(one.state is State.AVAILABLE for one in self._model(name).versions.values())
            ]

    def poll(self) -> None:
        """Look at every model's folder once and start what follows from it."""
        with self._changed:
            entries, wanted = self._entries, self._wanted
        listings: dict[str, dict[int, Path]] = {name: {} for name in {**entries, **wanted}}
        for entry in (*entries.values(), *wanted.values()):
            try:
                on_disk = versions_on_disk(entry.base_path)
            except OSError as error:
                log.warning("model %s: cannot list %s, nothing changes: %s", entry.name, entry.base_path, error)
                listings.pop(entry.name, None)
                continue
            if entry.name in listings:
                listings[entry.name] |= {number: on_disk[number] for number in aspired(entry.policy, on_disk)}
        with self._changed:
            if self._closed or entries is not self._entries or wanted is not self._wanted:
                return
            for name, listing in listings.items():
                self._model(name).aspired = listing
            for name, model in self._models.items():
                if name not in entries and name not in wanted:
                    model.aspired = {}
            for model in self._models.values():
                self._reconcile(model)

    def close(self) -> None:
        """Unload everything; leases that are out are waited for."""
        with self._changed:
            self._closed = True
            versions = [one for model in self._models.values() for one in model.versions.values()]
            for one in versions:
                one.cancelled.set()
            self._served = MappingProxyType({})
            self._changed.notify_all()
        for one in versions:
            if one.servable is not None:
                one.servable.close()

    # Loading and unloading

    def _model(self, name: str) -> _Model:
        return self._models.setdefault(name, _Model(name))

    def _reconcile(self, model: _Model) -> None:
        for number, path in sorted(model.aspired.items(), reverse=True):
            one = model.versions.get(number)
            if one is not None and (
                one.state is not State.END or (one.error is not None and not one.cancelled.is_set())
            ):
                continue
            model.versions[number] = fresh = Version(number, path)
            self._start(self._load, model, fresh)
        for number, one in model.versions.items():
            if number not in model.aspired:
                one.cancelled.set()
        states = {number: one.state for number, one in model.versions.items()}
        for number in to_unload(model.aspired.keys(), states):
            one = model.versions[number]
            one.state = State.UNLOADING
            self._start(self._unload, model, one)
        self._publish()

    def _start(self, work: object, model: _Model, one: Version) -> None:
        name = f"{model.name}/{one.number}"
        threading.Thread(target=work, args=(model, one), name=name, daemon=True).start()  # type: ignore[arg-type]

    def _load(self, model: _Model, one: Version) -> None:
        for attempt in range(self._options.retries + 1):
            with self._slots:
                if one.cancelled.is_set():
                    break
                self._set(model, one, State.LOADING)
                try:
                    servable = self._loaded(model, one)
                except ServingError as error:
                    log.warning("model %s version %d, try %d: %s", model.name, one.number, attempt + 1, error.message)
                    failure = error
                else:
                    one.servable = servable
                    self._set(model, one, State.AVAILABLE)
                    log.info("model %s version %d is AVAILABLE", model.name, one.number)
                    return
            with self._changed:
                one.error = failure if attempt == self._options.retries else None
                one.attempted = True
                self._changed.notify_all()
            if attempt < self._options.retries:
                one.cancelled.wait(self._options.retry_interval_s)
        self._set(model, one, State.END)

    def _loaded(self, model: _Model, one: Version) -> Servable:
        servable = Servable(model.name, one.number, one.path, self._options.loading)
        try:
            count = warm_up(servable, one.path, self._options.warmup_iterations)
        except BaseException:
            servable.close()
            raise
        log.info("model %s version %d is loaded, %d warm-up requests", model.name, one.number, count)
        return servable

    def _unload(self, model: _Model, one: Version) -> None:
        if one.servable is not None:
            one.servable.close()
        one.servable = None
        # A graph is a ring of references: without this its memory stays until Python next looks at everything it has.
        gc.collect()
        _give_memory_back()
        self._set(model, one, State.END)
        log.info("model %s version %d is unloaded", model.name, one.number)

    def _set(self, model: _Model, one: Version, state: State) -> None:
        with self._changed:
            one.state = state
            if state in {State.AVAILABLE, State.END}:
                one.attempted = True
            self._publish()
            if not self._closed and state not in LIVE - {State.AVAILABLE}:
                self._reconcile(model)
            self._changed.notify_all()

    def _publish(self) -> None:
        """Show requests the AVAILABLE versions; the caller holds the lock."""
        served: dict[str, _Served] = {}
        for name, model in self._models.items():
            versions = {
                number: one.servable
                for number, one in model.versions.items()
                if one.state is State.AVAILABLE and one.servable is not None
            }
            newest = versions[max(versions)] if versions else None
            served[name] = _Served(newest, MappingProxyType(versions), model.labels)
        self._served = MappingProxyType(served)


def _give_memory_back() -> None:
    """Have glibc return freed memory to the system, which it keeps otherwise: hundreds of MB after some versions."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _check_base_path(entry: ModelEntry) -> None:
    """Refuse what the real server would wait for without end."""
    try:
        on_disk = versions_on_disk(entry.base_path)
    except OSError as error:
        msg = f"Could not find base path {entry.base_path} for servable {entry.name}"
        raise not_found(msg) from error
    if not aspired(entry.policy, on_disk):
        msg = (
            f"No versions of servable {entry.name} found under base path {entry.base_path}: expected a folder named by "
            f"a version number that the policy takes, found {sorted(on_disk)}"
        )
        raise not_found(msg)
