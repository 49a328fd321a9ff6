"""Every setting of the recommender."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field, RedisDsn, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from feature_repo.contracts.channels import KNOWN_CHANNELS
from feature_repo.contracts.events import EVENTS_URL_PATTERN
from feature_repo.contracts.intervals import check_namespace, parse_cutoff
from feature_repo.contracts.list_policy import QUOTA_MAX
from feature_repo.contracts.places import settings_file, state_folder
from feature_repo.contracts.served_models import RANKING_DEADLINE_MS
from serving.recommender.errors import RecommenderError


def _redis_url(url: SecretStr) -> SecretStr:
    TypeAdapter(RedisDsn).validate_python(url.get_secret_value())
    return url


def _known_channels(quotas: dict[str, int]) -> dict[str, int]:
    """Return quotas of channels that there can be; ValueError names the others."""
    if unknown := sorted(quotas.keys() - set(KNOWN_CHANNELS)):
        msg = f"expected channels among {', '.join(KNOWN_CHANNELS)}, received {', '.join(unknown)}"
        raise ValueError(msg)
    return quotas


Quota = Annotated[int, Field(ge=0, le=QUOTA_MAX)]
Milliseconds = Annotated[int, Field(ge=1, le=10_000)]


class Settings(BaseSettings):
    """The process environment wins over `<state>/settings.env`."""

    model_config = SettingsConfigDict(
        env_prefix="KESTREL_", env_file_encoding="utf-8", extra="ignore", frozen=True, validate_default=True
    )

    state: Path = Field(default_factory=state_folder)
    """Where everything lies."""
    namespace: Annotated[str, AfterValidator(check_namespace)] = "ml-100k"
    """The data set that is recommended from."""
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] = SecretStr("redis://127.0.0.1:6390/0")
    """The online store, with its password."""
    model_server_grpc: str = Field(default="127.0.0.1:8500", pattern=r"^[^\s:/]+:\d{1,5}$")
    """The model server's gRPC side, host:port."""
    recommender_uri: str = Field(
        default="http://127.0.0.1:8000", pattern=r"^http://(\[[0-9a-fA-F:]+\]|[^\s:/]+):\d{1,5}/?$"
    )
    """Where the recommender listens, and is found."""

    recommender_workers: int = Field(default=1, ge=1, le=64)
    """Processes that share the address; each holds the catalogue."""
    recommender_clock: AwareDatetime | Literal["wall", "snapshot"] = "wall"
    """The platform's clock, by which features grow old and requests are made: wall time; a moment of the past that is
    replayed; or the moment that the snapshot in force reaches up to, for data sets of the past."""
    recommender_poll_seconds: float = Field(default=1.0, ge=0.05, le=3600)
    """How often the two pointers are looked at."""
    recommender_redis_ms: Milliseconds = 100
    """How long a request waits for the user's features."""
    recommender_ranking_ms: Milliseconds = RANKING_DEADLINE_MS
    """How long a request waits for the model server; the rollout compares a canary's latency with it."""
    recommender_ready_ms: Milliseconds = 500
    """How long the readiness page waits for each part."""
    events_url: str = Field(default="", pattern=EVENTS_URL_PATTERN)
    """Where events are streamed: empty, the online store's Redis, or kafka://host:port[,host:port]."""
    recommender_events_ms: Milliseconds = 1000
    """How long accepted events may take into their stream, and before it their ids into Redis' memory."""
    recommender_event_batch: int = Field(default=1000, ge=1, le=100_000)
    """How many events one request may send."""
    recommender_event_id_seconds: float = Field(default=86_400.0, ge=0.05, le=31_536_000)
    """How long an id that a sender gave names one event and no other; each such id takes that long a place in Redis."""
    recommender_candidates: int = Field(default=200, ge=100, le=5000)
    """How many items are ranked for one request."""
    recommender_remembered_users: int = Field(default=10_000, ge=0, le=10_000_000)
    """How many users' histories are kept in memory, so that they stay filtered while Redis is away."""
    recommender_quotas: Annotated[dict[str, Quota], AfterValidator(_known_channels)] = Field(default_factory=dict)
    """Channel → its share of the candidates, in proportion to the others, as JSON: `{"ease": 100, "popular": 0}`. One
    that is not named has the share that the release gives it, or that it is declared with."""
    lists_keep: float = Field(default=0.9, ge=0, le=1)
    """The share of the lists' NDCG@10 at the validation origin that re-ranking has to keep: it may cost the rest for
    the sake of lists that have less in common; 1 lets it cost nothing."""
    recommender_sampled_requests: int = Field(default=64, ge=0, le=10_000)
    """How many ranking requests of a period are kept, at random, to warm up and compare new versions; 0 keeps none."""
    recommender_sample_seconds: float = Field(default=3600.0, ge=1, le=86_400)
    """The length of such a period."""
    recommender_record_seconds: float = Field(default=5.0, ge=0.05, le=3600)
    """How often what was sampled and seen of a canary is written down."""
    shadow_share: float = Field(default=0.1, ge=0, le=1)
    """The share of the ranking requests that a canary gets as well, while there is one."""

    def latest_event_time(self) -> datetime:
        """Return the moment after which an event lies in the future.

        What happens now happens after the snapshot: a clock that stands still at it says nothing of events.
        """
        return datetime.now(UTC) if isinstance(self.recommender_clock, str) else self.recommender_clock

    def now(self, snapshot_cutoff: str) -> datetime:
        """Return the platform's time; `snapshot_cutoff` is that of the snapshot in force."""
        match self.recommender_clock:
            case "wall":
                return datetime.now(UTC)
            case "snapshot":
                return parse_cutoff(snapshot_cutoff)
            case moment:
                return moment


def load_settings() -> Settings:
    """Read the settings of this process; RecommenderError names each one that does not fit."""
    file = settings_file(state_folder())
    try:
        return Settings(_env_file=file, state=state_folder())
    except SettingsError as error:
        msg = (
            f"settings do not fit: {error}, whose value must be JSON ({error.__cause__}). "
            f"Change it in the environment or in {file}"
        )
        raise RecommenderError(msg) from error
    except ValidationError as error:
        faults = "; ".join(
            f"KESTREL_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}"
            for fault in error.errors(include_input=False)
        )
        msg = f"settings do not fit: {faults}. Change them in the environment or in {file}"
        raise RecommenderError(msg) from None
