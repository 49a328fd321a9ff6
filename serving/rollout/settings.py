"""Every setting of the rollout."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_repo.contracts.places import settings_file, state_folder
from feature_repo.contracts.served_models import RANKING_DEADLINE_MS


class Settings(BaseSettings):
    """The process environment wins over `<state>/settings.env`."""

    model_config = SettingsConfigDict(
        env_prefix="KESTREL_", env_file_encoding="utf-8", extra="ignore", frozen=True, validate_default=True
    )

    state: Path = Field(default_factory=state_folder)
    """Where everything lies."""
    mlflow_uri: str = Field(default="http://127.0.0.1:5000", pattern=r"^https?://[^\s]+$")
    """The MLflow server."""
    model_server_grpc: str = Field(default="127.0.0.1:8500", pattern=r"^[^\s/]+:\d{1,5}$")
    """The model server's gRPC side, host:port; a name with several addresses, or several with commas, has replicas."""
    rollout_keep_versions: int = Field(default=3, ge=2, le=1000)
    """How many versions stay on disk; those that are served stay in any case."""
    rollout_available_seconds: float = Field(default=120.0, gt=0, le=3600)
    """How long a new version may take to be AVAILABLE."""
    rollout_call_seconds: float = Field(default=150.0, gt=0, le=3600)
    """How long one call to the model server may take; a reload waits for its versions to load."""
    rollout_lock_seconds: float = Field(default=10.0, ge=0, le=600)
    """How long to wait for another rollout's lock before asking for a later try."""
    rollout_score_tolerance: float = Field(default=1e-5, ge=0, le=0.01)
    """The largest absolute difference between a replayed score and the evaluation's."""
    rollout_warmup_requests: int = Field(default=32, ge=0, le=1000)
    """How many recorded requests a new version answers before it is AVAILABLE; 0 leaves the warm-up file out."""
    rollout_compare_requests: int = Field(default=200, ge=1, le=10_000)
    """How many requests canary and stable version are compared on; fewer recorded ones are sent several times."""
    rollout_compare_error_rate: float = Field(default=0.0, ge=0, le=1)
    """The largest share of requests that the canary may fail, by an error or by a score that is not finite, unless the
    stable version fails a larger one of the same requests."""
    rollout_compare_latency_ratio: float = Field(default=2.0, ge=1, le=100)
    """How many times the stable version's p50 and p99 latency the canary's may be."""
    rollout_compare_latency_ms: float = Field(default=10.0, ge=0, le=60_000)
    """Below this many milliseconds no p50 latency is a reason to withdraw, whatever the ratio."""
    rollout_compare_p99_ms: float = Field(default=50.0, ge=0, le=60_000)
    """The same of p99, which a busy machine moves: of 200 requests it is about the third slowest."""
    rollout_compare_deadline_share: float = Field(default=0.5, gt=0, le=1)
    """The share of the recommender's deadline for ranking that the canary's p50 may take, whatever the ratio."""
    recommender_ranking_ms: int = Field(default=RANKING_DEADLINE_MS, ge=1, le=10_000)
    """The recommender's own setting: how long a request waits for the model server."""
    rollout_compare_call_seconds: float = Field(default=10.0, gt=0, le=600)
    """How long one compared request may take before it counts as failed."""
    rollout_shadow_requests: int = Field(default=0, ge=0, le=100_000)
    """How many shadowed requests a comparison waits for; 0 takes those that there are."""
    rollout_shadow_seconds: float = Field(default=60.0, ge=0, le=86_400)
    """How long it waits for them, before it goes on with those that there are."""
    rollout_shadow_required: int = Field(default=1, ge=0, le=100_000)
    """How many shadowed requests the canary has to answer, where recommenders have sent it any; 0 asks for none."""

    @property
    def latency_bound_ms(self) -> float:
        """The p50 latency above which a version comes too near to the recommender's deadline."""
        return self.rollout_compare_deadline_share * self.recommender_ranking_ms


def load_settings() -> Settings:
    """Read the settings of this process."""
    return Settings(_env_file=settings_file(state_folder()), state=state_folder())
