"""Registered models that a rollout can be tried on: one MLflow server, and SavedModels told apart by their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.serving_world import export_ranking, register, write_golden

if TYPE_CHECKING:
    from pathlib import Path

BIASES = {"first": 0.25, "second": -0.5, "third": 1.0}
"""Name → what the model adds to every score."""


class World:
    """One MLflow server and one set of SavedModels; a namespace of its own for each test."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        self.uri = uri
        self.models = {}
        self.golden = {}
        for name, bias in BIASES.items():
            self.models[name] = folder / "models" / name
            export_ranking(self.models[name], bias)
            self.golden[name] = folder / f"golden-{name}.json"
            write_golden(self.golden[name], bias)
        self.count = 0

    def namespace(self) -> str:
        self.count += 1
        return f"ns-{self.count}"

    def register(self, namespace: str, name: str, **differences: Any) -> int:
        golden = self.golden[differences.pop("golden", name)]
        saved_model = differences.pop("saved_model", self.models[name])
        return register(self.uri, self.folder / "runs", namespace, saved_model, golden, **differences)
