"""What can go wrong when lists are measured.

JobError
├── QuestionsError              questions are not what their manifest says, or belong to another data set (terminal)
└── UnmeasurableError           a model's lists would not be those that users get, or would know the answers (terminal)
RejectedError
└── NothingToLearnError         what recall offered holds nothing that lists could be learned from: a result, no fault
TransientError
└── UnansweredError             the model server did not answer every question, or a channel failed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.jobs import JobError, RejectedError, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping


class QuestionsError(JobError):
    """Questions cannot be asked as they are."""


class UnmeasurableError(JobError):
    """A model's lists at an origin would say nothing of those that users get."""


class NothingToLearnError(RejectedError):
    """No model can learn lists from the candidates: the log is too short, or too few came back."""

    def __init__(self, done: Mapping[str, object]) -> None:
        super().__init__(str(done["note"]))
        self.result = done


class UnansweredError(TransientError):
    """The engine had to do without something that measuring must not do without."""
