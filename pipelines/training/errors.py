"""What can be wrong with a training set.

    JobError                    terminal
    ├── TrainingDataError       too few events, or labels of one class only: nothing can be learned or measured
    ├── CandidatesError         candidates, or their questions, are gone, damaged, of other data, or know the answers
    └── CorruptTrainingSetError a stored training set is not what its manifest says

All end the job for good: more data, other settings, other candidates, or a removed folder are the remedies.
"""

from __future__ import annotations

from pipelines.errors import JobError


class TrainingDataError(JobError):
    """The events do not make a training set."""


class CandidatesError(JobError):
    """No training set can be made of what recall offered."""


class CorruptTrainingSetError(JobError):
    """A stored training set is not what its manifest says."""
