"""Cuts a switch off at each of its steps, as kill -9 would, and says whether everybody agrees afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from feature_repo.contracts.manifests import Release
from serving.rollout import candidate, journal, status, switching
from serving.rollout import registry as registry_module
from tests.rollout_world import served_bias

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving.rollout.serving_model import ServingModel
    from tests.serving_world import ModelServer


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


STEPS: tuple[tuple[Any, str], ...] = (
    (switching, "bring_to_disk"),
    (journal, "intend"),
    (candidate, "make_available"),
    (switching, "write_models_config"),
    (candidate, "reload_configured"),
    (Release, "write"),
    (registry_module.Registry, "set_alias"),
    (candidate, "forget"),
    (switching, "prune"),
    (journal, "done"),
)


@dataclass(frozen=True)
class Cut:
    """Where a promotion is cut off: before or after which step."""

    owner: Any
    name: str
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'}-{self.name}"


CUTS = [Cut(owner, name, after) for owner, name in STEPS for after in (False, True)]


def cut_off(monkeypatch: pytest.MonkeyPatch, cut: Cut, act: Callable[[], object]) -> None:
    """Do `act` and be killed where `cut` says."""
    real = getattr(cut.owner, cut.name)

    def killing(*arguments: Any, **options: Any) -> None:
        if cut.after:
            real(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(cut.owner, cut.name, killing)
        with pytest.raises(Killed):
            act()


def agreed(server: ModelServer, model: ServingModel) -> str:
    """Return which model is served, having checked that every part says the same."""
    report = status.status(model)
    assert report["agree"] is True, report["problems"]
    assert report["pending"] is None
    served = served_bias(server, model, label="stable")
    assert served_bias(server, model, version=int(str(report["version"]))) == served
    assert report["aliases"]["champion"] == int(str(report["version"]))  # type: ignore[index] # a report is made of objects
    return served
