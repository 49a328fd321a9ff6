"""The data plane's settings: the process environment first, then the state folder's settings.env."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_types import Gt, Lt
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_repo.contracts.events import EVENTS_URL_PATTERN
from feature_repo.contracts.places import settings_file, state_folder
from pipelines.errors import JobError

Share = Annotated[float, Gt(0), Lt(1)]


class Settings(BaseSettings):
    """What the jobs of the data plane are told from outside. Made by `load_settings`, never changed."""

    model_config = SettingsConfigDict(env_prefix="KESTREL_", frozen=True, extra="ignore")

    state: Path = Field(default_factory=state_folder)
    """The folder that holds everything this project writes."""
    redis_url: str = "redis://127.0.0.1:6390/0"
    """The online store."""
    java_home: Path | None = None
    """A Java installation for Spark; without it, JAVA_HOME or the `java` on PATH is taken."""
    spark_master: str = "local[*]"
    """Where Spark runs."""
    spark_driver_memory: Annotated[str, Field(pattern=r"^[1-9][0-9]*[kmgKMG]$")] = "2g"
    """Heap of the Spark driver, as Spark writes it."""
    label_min_value: Annotated[float, Field(ge=0)] | None = None
    """A positive event of at least this value is a positive label; by default, what the data set's schema says."""
    negatives: Annotated[int, Field(ge=1, le=100)] = 4
    """Rows with an item drawn by popularity for each positive event, where feedback is implicit."""
    samples_per_user: Annotated[int, Field(ge=0)] = 0
    """The largest number of train rows of one user; 0 takes all."""
    weight_half_life_days: Annotated[float, Field(ge=0)] = 0.0
    """A train row this long before the end of train counts half; 0 weighs all rows alike."""
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


def load_settings() -> Settings:
    """Read the settings of this process; JobError names each setting that does not fit."""
    state = state_folder()
    file = settings_file(state)
    try:
        return Settings(_env_file=file, state=state)
    except ValidationError as error:
        faults = "; ".join(
            f"KESTREL_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}, received {fault['input']!r}"
            for fault in error.errors()
        )
        msg = f"settings do not fit: {faults}. Change them in the environment or in {file}"
        raise JobError(msg) from error
