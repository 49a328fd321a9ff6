"""What can go wrong when lists are measured.

JobError
└── QuestionsError              questions are not what their manifest says, or belong to another data set (terminal)
TransientError
└── UnansweredError             the model server did not answer every question
"""

from __future__ import annotations

from feature_repo.contracts.jobs import JobError, TransientError


class QuestionsError(JobError):
    """Questions cannot be asked as they are."""


class UnansweredError(TransientError):
    """The engine had to do without something that measuring must not do without."""
