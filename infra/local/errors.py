"""What can go wrong on one machine.

LocalError                terminal: one sentence, with the setting to change
├── SettingsError         settings.env or the environment says something that cannot be
├── PreflightError        a port, the disk, the memory or a tool is missing, found before anything starts
├── PartFailedError       a part of the stack did not become healthy
├── ServerFaultError      Airflow answers with a fault of its own (HTTP 5xx)
└── RunFailedError        a DAG run of the demo failed
"""

from __future__ import annotations

from feature_repo.contracts.jobs import JobError


class LocalError(JobError):
    """The stack on this machine cannot do what was asked."""


class SettingsError(LocalError):
    """A setting is unknown or out of range."""


class PreflightError(LocalError):
    """The machine lacks something that the stack needs."""


class PartFailedError(LocalError):
    """A part ended, or was not healthy in time."""


class ServerFaultError(LocalError):
    """Airflow's API failed by itself, again and again."""


class RunFailedError(LocalError):
    """A task of the demo's DAG runs failed."""
