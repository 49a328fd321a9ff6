"""What can be wrong with a training set.

    JobError                    terminal
    ├── TrainingDataError       too few events, or labels of one class only: nothing can be learned or measured
    │   └── TooFewListsError    of lists: a result (exit 10), for whoever learns from events goes on
    ├── CandidatesError         candidates, or their questions, are gone, damaged, of other data, or know the answers
    └── CorruptTrainingSetError a stored training set is not what its manifest says

All end the job for good: more data, other settings, other candidates, or a removed folder are the remedies.
"""

from __future__ import annotations

from feature_repo.contracts.exit_codes import ExitCode
from pipelines.errors import JobError


class TrainingDataError(JobError):
    """The events do not make a training set."""


class TooFewListsError(TrainingDataError):
    """Lists cannot be learned of what was asked: a result, for whoever learns from events goes on."""

    exit_code = ExitCode.REJECTED


class CandidatesError(JobError):
    """No training set can be made of what recall offered."""


class CorruptTrainingSetError(JobError):
    """A stored training set is not what its manifest says."""
