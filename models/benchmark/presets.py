"""Presets: the settings under which others published a row for each model, and the rows.

    common: {embedding_size: 10, batch_size: 4096, learning_rate: 0.001}
    models:
      fm: {l2: 5.0e-6, auc: 0.9671, seeds: 1}

A setting is a field of the model's config, or of its `fit`. `auc` and `seeds` are the published row. `l2` is that of
the benchmark, which adds half of it times the sum of squares; a config adds the whole.

A row was published of a whole configuration, and a preset seldom tells all of it. So where there is `auc`, settings
that the preset leaves out are those of `published.yaml`: the configurations of the benchmark's runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.benchmark.boosted import Boosted, BoostedConfig
from models.declared import read_declared, told
from models.errors import SpecError
from models.ranking.base import KerasConfig
from models.ranking.catalogue import RANKING_MODELS, ranking_model
from models.ranking.fields import DeepConfig
from models.training.keras_loop import FitConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

_EXAMPLE = Path(__file__).parent / "presets.yaml"
_CONTEXT = Path(__file__).parent / "context.yaml"
_UNTOLD = Path(__file__).parent / "published.yaml"
_FIT = FitConfig(
    batch_size=4096, epochs=100, patience=2, learning_rate=1e-3, stop_by="auc", plateau_factor=0.1, clip_norm=10.0
)
"""How the benchmark fits: by the validation rows' AUC, a tenth of the rate where it does not rise, gradients cut."""
_HIDDEN = (400, 400, 400)
"""Widths of a perceptron in the benchmark, where a preset names none."""
_PUBLISHED = ("auc", "seeds")
_ANYWHERE = {field for model in RANKING_MODELS.values() for field in model.config_class.model_fields}
"""Settings that some model has."""


class Presets(BaseModel):
    """A file of presets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    common: dict[str, Any] = {}
    """Settings of every model."""
    models: dict[str, dict[str, Any]] = Field(min_length=1)
    """Model → its settings, and its published row."""
    search: tuple[dict[str, Any], ...] = ()
    """Settings of which `make bench-models` takes the best by validation rows, for each model that has them."""


@dataclass(frozen=True, slots=True)
class Preset:
    """What one model is fitted with, and what others found."""

    config: Any
    """Of the model's class."""
    published: Mapping[str, float]
    """`auc`, and of how many `seeds`; empty where nothing was published."""


def read_presets(path: Path) -> Presets:
    """Return the presets of a file.

    Raises:
        SpecError: It is no such file, or there is no such model.
    """
    presets = read_declared(Presets, path, _EXAMPLE, SpecError)
    if unknown := sorted(presets.models.keys() - RANKING_MODELS.keys() - {Boosted.name}):
        there = [*RANKING_MODELS, Boosted.name]
        msg = f"{path}: models {unknown}: expected some of {there}; mend the names"
        raise SpecError(msg)
    return presets


def context_presets() -> Presets:
    """Return the settings under which context tables are compared, where nobody names others."""
    return read_presets(_CONTEXT)


def preset_of(name: str, presets: Presets | None) -> Preset:
    """Return a model's preset: with none its class's defaults, fitted as the benchmark fits.

    Raises:
        SpecError: There is no such model, or a setting is none of its config.
    """
    config_class = ranking_model(name).config_class
    settings = _both(name, presets) if presets else {}
    if "auc" in settings:
        settings = {**_both(name, read_presets(_UNTOLD)), **settings}
    published: dict[str, float] = {key: settings.pop(key) for key in _PUBLISHED if key in settings}
    settings = _named_as_here(name, settings)
    fit = {key: settings.pop(key) for key in list(settings) if key in FitConfig.model_fields}
    own = {key: value for key, value in settings.items() if key in config_class.model_fields}
    # What is common to all need not be a setting of each, as a linear model has no vectors; but of some model.
    common = presets.common.keys() & _ANYWHERE if presets else set()
    if unknown := settings.keys() - own.keys() - common:
        msg = f"preset of {name}: settings {sorted(unknown)}: expected some of {sorted(config_class.model_fields)}"
        raise SpecError(msg)
    if issubclass(config_class, KerasConfig):
        own["fit"] = _FIT.model_copy(update=fit).model_dump()
    if "unknown_rate" in config_class.model_fields:
        own.setdefault("unknown_rate", 0.0)
    hidden = config_class.model_fields.get("hidden")
    if hidden is not None and hidden.default == DeepConfig.model_fields["hidden"].default:
        own.setdefault("hidden", _HIDDEN)
    try:
        return Preset(config_class.model_validate(own), published)
    except ValidationError as error:
        msg = f"preset of {name}: {told(error)}"
        raise SpecError(msg) from error


def boosted_preset(presets: Presets | None) -> Preset:
    """Return the preset of LightGBM: what the presets name it for, as nothing that the others have in common is its.

    Raises:
        SpecError: A setting is none of its config.
    """
    settings = dict(presets.models.get(Boosted.name, {})) if presets else {}
    published = {key: settings.pop(key) for key in _PUBLISHED if key in settings}
    try:
        return Preset(BoostedConfig.model_validate(settings), published)
    except ValidationError as error:
        msg = f"preset of {Boosted.name}: {told(error)}"
        raise SpecError(msg) from error


def _both(name: str, presets: Presets) -> dict[str, Any]:
    """Return what is common to all models, and what is a model's own."""
    return {**presets.common, **presets.models.get(name, {})}


def _named_as_here(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings by the names of the configs."""
    renamed = dict(settings)
    if "l2" in renamed:
        renamed["l2"] = float(renamed["l2"]) / 2
    if "cin" in renamed:
        renamed["maps"] = [renamed.pop("cin")]
    if name == "finalmlp" and renamed.get("hidden") and isinstance(renamed["hidden"][0], list):
        renamed["hidden"], renamed["second"] = renamed["hidden"]
    return renamed
