"""What can go wrong in the recommender.

JobError
├── RecommenderError            somebody has to look (terminal)
│   ├── AddressError            the address cannot be bound
│   ├── SnapshotError           an online snapshot is not what its manifest says
│   └── StoredValueError        bytes in Redis that are no Feast value of the declared type
├── UserFeaturesError           Redis did not answer in time (transient)
├── RankingError                the model server did not answer, or not in time (transient)
└── MeasurementError            a running recommender could not be measured (transient)

None of these ever reaches a user: each stage has a fallback.
"""

from __future__ import annotations

from feature_repo.contracts.jobs import JobError, TransientError


class RecommenderError(JobError):
    """The recommender cannot do what it was asked, and will not until somebody changes something."""


class AddressError(RecommenderError):
    """The address that the recommender should listen at cannot be bound."""


class SnapshotError(RecommenderError):
    """An online snapshot's files are not what its manifest says."""


class StoredValueError(RecommenderError):
    """Redis holds bytes that are not a Feast value of the type that the contract declares."""


class UserFeaturesError(TransientError):
    """Redis is away or too slow."""


class RankingError(TransientError):
    """The model server is away, too slow, or refused."""


class MeasurementError(TransientError):
    """The recommender to be measured does not answer."""
