"""What stops a rollout.

    JobError
    ├── RolloutError                    terminal
    │   ├── NumberTakenError            the registry gave a number anew, under which another model serves
    │   ├── LostModelError              a SavedModel is neither on the disk nor in the registry any longer
    │   ├── UnknownVersionError         the registry has no such version, or it lacks what a rollout needs
    │   ├── UnfitModelError             checksum or signature differ from what was registered or agreed
    │   ├── WrongScoresError            the server's scores are not those of the evaluation
    │   ├── WorseCanaryError            the canary fails, or is too slow, where the stable version is not
    │   ├── AbsentViewsError            a release reads feature views that are not online
    │   └── DisagreementError           a reconciliation leaves something that a person has to decide
    ├── RegistryUnavailableError        MLflow does not answer; transient
    ├── FullDiskError                   no room for a version; transient
    ├── UndecidedCanaryError            a comparison found out too little of the canary; transient
    └── RolloutBusyError                another rollout of the model, or of the configuration, is at work; transient

Calls to the model server raise `serving.protocol.errors.CallError`; the gates' "no" is a RejectedError.
"""

from __future__ import annotations

from feature_repo.contracts.jobs import JobError, TransientError


class RolloutError(JobError):
    """A rollout cannot go on."""


class UnknownVersionError(RolloutError):
    """The registry has no such version, or it lacks a tag or an artifact."""


class NumberTakenError(RolloutError):
    """The registry gave a number anew, under which another model serves."""


class LostModelError(RolloutError):
    """A SavedModel is neither on the disk nor in the registry any longer."""


class UnfitModelError(RolloutError):
    """A SavedModel is not the one that was registered, or does not keep to the contract."""


class WrongScoresError(RolloutError):
    """The server's scores differ from those of the evaluation."""


class WorseCanaryError(RolloutError):
    """The canary fails, or is too slow, where the stable version is not."""


class AbsentViewsError(RolloutError):
    """A release reads feature views that are not online: a recommender would rank nothing with it."""


class DisagreementError(RolloutError):
    """Not everybody agrees with the release in force, and no rule says who should give way."""


class RegistryUnavailableError(TransientError):
    """MLflow does not answer."""


class FullDiskError(TransientError):
    """There is no room for a version."""


class UndecidedCanaryError(TransientError):
    """A comparison found out too little of the canary to promote it, or to withdraw it."""


class RolloutBusyError(TransientError):
    """Somebody else holds the lock."""
