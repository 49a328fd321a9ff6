"""Settings of the model plane, from the process environment and then from `<state>/settings.env`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_repo.contracts.places import settings_file, state_folder


class Settings(BaseSettings):
    """Where things are, and how models are trained."""

    model_config = SettingsConfigDict(env_prefix="KESTREL_", extra="ignore", frozen=True, env_ignore_empty=True)

    state: Path = Field(default_factory=state_folder)
    """The folder that holds all state."""
    mlflow_uri: str = Field(default="http://127.0.0.1:5000", pattern=r"^https?://.+")
    """The MLflow tracking server and registry."""
    seed: int = Field(default=20, ge=0)
    """Seeds initial weights, batches, dropout and bootstrap."""
    ece_bins: int = Field(default=10, ge=2, le=100)
    """Bins of equal row count, over which calibration is measured."""
    model_specs: Path | None = None
    """What a training run trains, a YAML file as `models/specs/ranking.yaml`; that one where none is named."""
    gate_margins: Path | None = None
    """The gates' margins, a YAML file as `models/gates/ranking.yaml`; that one where none is named."""
    importance_rows: int = Field(default=2_000, ge=1, le=100_000)
    """Test rows, at most, on which the importance of the winner's inputs is measured."""
    importance_repeats: int = Field(default=3, ge=1, le=100)
    """How often each input is permuted for it."""
    golden_rows: int = Field(default=200, ge=1, le=10_000)
    """Test rows in the golden requests for `serving_default`."""
    golden_users: int = Field(default=5, ge=1, le=1_000)
    """Golden requests for `one_user`."""
    golden_candidates: int = Field(default=100, ge=1, le=10_000)
    """Candidates in each golden request for `one_user`."""


@cache
def settings() -> Settings:
    """Return the settings of this process."""
    return Settings(_env_file=settings_file(state_folder()), state=state_folder(), _env_file_encoding="utf-8")
