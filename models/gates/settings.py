"""The declared margins of the gates: `KESTREL_GATE_...`."""

from __future__ import annotations

from functools import cache

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_repo.contracts.places import settings_file, state_folder


class GateSettings(BaseSettings):
    """Margins and limits. A difference is candidate minus other; why these values stands in decision 0031."""

    model_config = SettingsConfigDict(env_prefix="KESTREL_GATE_", extra="ignore", frozen=True)

    resamples: int = Field(default=1000, ge=100, le=20_000)
    """Bootstrap resamples of users behind each interval."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of the intervals."""
    min_auc: float = Field(default=0.55, ge=0.5, le=1)
    """The lower end of the candidate's AUC interval has to reach this: 0.5 is what shuffled labels give."""
    min_gain_over_simple: float = Field(default=0.003, ge=0, le=0.5)
    """AUC has to be at least so much better than each untrained baseline (means, popularity)."""
    max_gauc_loss_to_simple: float = Field(default=0.0, ge=0, le=0.5)
    """GAUC may be at most so much worse than that of each untrained baseline."""
    max_auc_loss_to_lr: float = Field(default=0.0, ge=0, le=0.5)
    """AUC may be at most so much worse than that of logistic regression."""
    max_gauc_loss_to_lr: float = Field(default=0.01, ge=0, le=0.5)
    """GAUC may be at most so much worse than that of logistic regression."""
    max_log_loss_rise_over_lr: float = Field(default=0.0, ge=0, le=1)
    """Log loss (nats) may be at most so much above that of logistic regression."""
    max_auc_loss_to_champion: float = Field(default=0.003, ge=0, le=0.5)
    """AUC may be at most so much worse than the champion's."""
    max_gauc_loss_to_champion: float = Field(default=0.01, ge=0, le=0.5)
    """GAUC may be at most so much worse than the champion's."""
    max_log_loss_rise_over_champion: float = Field(default=0.005, ge=0, le=1)
    """Log loss (nats) may be at most so much above the champion's."""
    max_ece: float = Field(default=0.05, gt=0, le=1)
    """Largest expected calibration error."""
    max_calibration_shift: float = Field(default=0.1, gt=0, le=1)
    """Observed over expected positives may be at most so far from 1."""
    max_serving_difference: float = Field(default=1e-5, ge=0, le=1)
    """Largest distance between a score from the model server and the offline one."""
    max_grpc_p99_ms: float = Field(default=50.0, gt=0)
    """Latency limit of the golden requests over gRPC, 99th percentile in milliseconds."""
    promote_on_tie: bool = False
    """Whether a candidate that passes every gate, but shows no difference from the champion, replaces it."""


@cache
def gate_settings() -> GateSettings:
    """Return the gates' settings of this process."""
    return GateSettings(_env_file=settings_file(state_folder()), _env_file_encoding="utf-8")
