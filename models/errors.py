"""What can go wrong in the model plane.

JobError
├── DatasetError            a training set is not what its manifest or the contract says
├── ExportError             an exported model does not keep the contract's signature
├── CandidateError          the candidate's folder lacks what an earlier job writes
├── MarginsError            the gates' margins are not what they should be
├── NotFiniteError          a loss or a score is no number that counts
├── BuildError              a model's config gives no graph
├── BenchmarkError          a model of a benchmark failed; the others have their rows
├── UnknownFeatureError     a model is to read a feature that there is not, or has none to read
├── TooLittleMemoryError    a training needs more memory than there is
├── DeletedInMlflowError    an experiment or a run was deleted in MLflow
├── TrackingRefusedError    the MLflow server refused a call
├── SpecError               a spec, or a file of specs, is not what it should be
│   └── UnknownModelError   no ranking model has this name
├── NotNowEnoughMemoryError (transient)  a training needs more memory than is free
├── TrackingUnavailableError (transient)  the MLflow server does not answer
└── LockedError (transient)  another job writes the same part of a candidate's folder (`feature_repo.locks`)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.jobs import JobError, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class DatasetError(JobError):
    """A training set is not what its manifest or the contract says."""


class ExportError(JobError):
    """An exported model does not keep the contract's signature."""


class CandidateError(JobError):
    """The candidate's folder lacks what an earlier job writes, or holds something of another run."""


class MarginsError(JobError):
    """The file of the gates' margins is not what it should be."""


class NotFiniteError(JobError):
    """A loss or a score is NaN or infinite: nothing that follows from it means anything."""


class SpecError(JobError, ValueError):
    """A spec, or a file of specs, is not what it should be."""


class UnknownModelError(SpecError):
    """No ranking model has this name."""


class BenchmarkError(JobError):
    """A model of a benchmark failed; `result` has the rows of all."""

    def __init__(self, failed: Sequence[str], result: Mapping[str, object]) -> None:
        super().__init__(f"benchmark: expected a figure of every model, received none of {list(failed)}; see `error`")
        self.result = result


class UnknownFeatureError(JobError):
    """A model is to read an on-demand feature that there is not, or has nothing to read."""


class BuildError(JobError):
    """A model's config gives no graph that Keras builds."""


class TooLittleMemoryError(JobError):
    """A training needs more memory than this machine or container has."""


class NotNowEnoughMemoryError(TransientError):
    """A training needs more memory than is free; others may end."""


class DeletedInMlflowError(JobError):
    """An experiment or a run was deleted in MLflow; it may be brought back, or done without."""


class TrackingRefusedError(JobError):
    """The MLflow server refused a call, as of something that is no longer there."""


class TrackingUnavailableError(TransientError):
    """The MLflow server does not answer; it may well in a minute."""
