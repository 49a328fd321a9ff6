"""The data plane's settings: the process environment first, then the state folder's settings.env."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt, Lt
from pydantic import AfterValidator, AwareDatetime, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from feature_repo.contracts.embeddings import embeddings_named
from feature_repo.contracts.events import EVENTS_URL_PATTERN
from feature_repo.contracts.places import settings_file, state_folder
from pipelines.errors import JobError

Share = Annotated[float, Gt(0), Lt(1)]
SparkOption = Annotated[str, Field(pattern=r"^spark\.[A-Za-z0-9_.-]+$")]
RegistryUrl = Annotated[str, Field(pattern=r"^$|^[a-z0-9]+(\+[a-z0-9]+)?://")]


class OfflineEngine(StrEnum):
    """What joins features to labels, and reads the latest rows. Both keep the same promises."""

    DUCKDB = "duckdb"
    """In the job's own process, over the state folder."""
    SPARK = "spark"
    """Wherever `spark_master` says."""


def _names(text: str) -> str:
    """Return comma-separated names of kinds of embeddings; ValueError for one that there is not."""
    return ",".join(kind.name for kind in embeddings_named(name.strip() for name in text.split(",")))


class Settings(BaseSettings):
    """What the jobs of the data plane are told from outside. Made by `load_settings`, never changed."""

    model_config = SettingsConfigDict(env_prefix="KESTREL_", frozen=True, extra="ignore")

    state: Path = Field(default_factory=state_folder)
    """The folder that holds everything this project writes."""
    redis_url: str = "redis://127.0.0.1:6390/0"
    """The online store."""
    java_home: Path | None = None
    """A Java installation for Spark; without it, JAVA_HOME or the `java` on PATH is taken."""
    java_archives: Path | None = None
    """A folder in which Java keeps what it has learned of Spark's classes, so that sessions start sooner; None: it does
    not."""
    spark_master: str = "local[*]"
    """Where Spark runs: `local[*]`, `spark://host:port`, `k8s://https://host:port` or `yarn`. What each needs stands in
    docs/scale.md."""
    spark_driver_memory: Annotated[str, Field(pattern=r"^[1-9][0-9]*[kmgKMG]$")] = "2g"
    """Heap of the Spark driver, as Spark writes it."""
    spark_options: dict[SparkOption, str] = Field(default_factory=dict)
    """Further settings of Spark, as JSON: `{"spark.executor.memory": "4g"}`. They win over the project's own."""
    feast_registry_url: RegistryUrl = ""
    """SQLAlchemy's URL of the database that holds Feast's registry, such as
    `postgresql+psycopg2://user:password@host/database`; empty: a SQLite file for each namespace."""
    feast_offline_engine: OfflineEngine = OfflineEngine.DUCKDB
    """What Feast's offline store runs on."""
    label_min_value: Annotated[float, Field(ge=0)] | None = None
    """A positive event of at least this value is a positive label; by default, what the data set's schema says."""
    negatives: Annotated[int, Field(ge=1, le=100)] = 4
    """Rows with an item drawn by popularity for each positive event, where feedback is implicit."""
    samples_per_user: Annotated[int, Field(ge=0)] = 0
    """The largest number of labelled events of one user in train, drawn rows aside; 0 takes all."""
    weight_half_life_days: Annotated[float, Field(ge=0)] = 0.0
    """A train row this long before the end of train counts half; 0 weighs all rows alike."""
    list_rows: Annotated[int, Field(ge=0)] = 200_000
    """About so many rows of train of each kind (liked, taken and not liked, not taken), where rows are candidates of
    recall: of more, each question keeps fewer, 20 at least. 0 takes all."""
    ranking_windows: bool = False
    """Whether training sets for ranking hold the figures of windows, too. Models that are served read none of them."""
    ranking_sequences: bool = False
    """Whether training sets for ranking and of lists hold the user's last events, too, and the windows."""
    train_fraction: Share = 0.8
    """Share of the events, by time, that is in train."""
    valid_fraction: Share = 0.1
    """Share of the events, by time, that follows train; the rest is test."""
    refresh_hours: Annotated[int, Field(ge=1, le=24 * 365)] = 24
    """How often the online store is taken to be refreshed."""
    events_url: Annotated[str, Field(pattern=EVENTS_URL_PATTERN)] = ""
    """Where events are streamed: empty, the online store's Redis, or kafka://host:port[,host:port]."""
    stream_land_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """How often the stream job lands what came, in seconds: one file each time."""
    stream_claim_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 1000
    """After how long an event that a reader took and did not finish goes to another, in milliseconds."""
    quarantine_limit: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The largest share of a source file's rows that may be refused."""
    check_interval_days: Annotated[int, Field(ge=1, le=366)] = 7
    """How many days before the cutoff `check` compares with the recent past, where it is not told a start."""
    check_recent_windows: Annotated[int, Field(ge=1, le=52)] = 4
    """How many windows as long as the interval make the recent past."""
    check_accepted: Annotated[str, Field(pattern=r"^[a-z0-9_.,\s]*$")] = ""
    """Names of checks whose failure stops nothing, parted by commas; it is still shown."""
    question_days: Annotated[int, Field(ge=1, le=366)] = 30
    """How many days after an origin hold the answers to its questions."""
    question_origins: Annotated[int, Field(ge=1, le=52)] = 5
    """How many origins a log is judged at, where it is long enough."""
    question_train_origins: Annotated[int, Field(ge=0, le=52)] = 8
    """How many origins before those a model that orders lists learns from, where the log is long enough."""
    question_users: Annotated[int, Field(ge=1, le=20_000)] = 2000
    """How many users are asked at an origin; of more, a sample."""
    question_train_users: Annotated[int, Field(ge=1, le=20_000)] = 750
    """How many of them, at an origin that models learn from: there are several of these."""
    question_ease_items: Annotated[int, Field(ge=1, le=20_000)] = 5000
    """So many of the most liked items EASE and ItemCF know; they take its square of memory."""
    channel_items: Annotated[int, Field(ge=1, le=20_000)] = 20_000
    """So many of the most liked items the channels of EASE know; their fit takes sixteen times its square, in bytes."""
    channel_neighbours: Annotated[int, Field(ge=1, le=2000)] = 500
    """So many of an item's neighbours the channels' tables hold at most: those with the greatest weights."""
    embeddings: Annotated[str, AfterValidator(_names)] = "item2vec"
    """Kinds of item embeddings to fit, their names with commas between. Training sets and releases name the first."""

    recommender_clock: AwareDatetime | Literal["wall", "snapshot"] = "wall"
    """The platform's clock, by which features grow old: wall time, a moment, or the cutoff that is online."""

    def now(self, cutoff: datetime) -> datetime:
        """Return the platform's time; `cutoff` is what the online side reaches up to."""
        match self.recommender_clock:
            case "wall":
                return datetime.now(UTC)
            case "snapshot":
                return cutoff
            case moment:
                return moment

    @property
    def accepted_checks(self) -> frozenset[str]:
        """The names in `check_accepted`."""
        return frozenset(filter(None, (name.strip() for name in self.check_accepted.split(","))))

    @property
    def embedding_names(self) -> tuple[str, ...]:
        """The names, one by one."""
        return tuple(self.embeddings.split(","))


def load_settings() -> Settings:
    """Read the settings of this process; JobError names each setting that does not fit."""
    state = state_folder()
    file = settings_file(state)
    try:
        return Settings(_env_file=file, state=state)
    except SettingsError as error:
        msg = (
            f"settings do not fit: {error}, whose value must be JSON ({error.__cause__}). "
            f"Change it in the environment or in {file}"
        )
        raise JobError(msg) from error
    except ValidationError as error:
        faults = "; ".join(
            f"KESTREL_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}, received {fault['input']!r}"
            for fault in error.errors()
        )
        msg = f"settings do not fit: {faults}. Change them in the environment or in {file}"
        raise JobError(msg) from error
