"""What can go wrong when lists are measured.

JobError
├── QuestionsError              questions are not what their manifest says, or belong to another data set (terminal)
└── UnmeasurableError           a model's lists would not be those that users get, or would know the answers (terminal)
TransientError
└── UnansweredError             the model server did not answer every question, or a channel failed
"""

from __future__ import annotations

from feature_repo.contracts.jobs import JobError, TransientError


class QuestionsError(JobError):
    """Questions cannot be asked as they are."""


class UnmeasurableError(JobError):
    """A model's lists at an origin would say nothing of those that users get."""


class UnansweredError(TransientError):
    """The engine had to do without something that measuring must not do without."""
