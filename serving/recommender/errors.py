"""What can go wrong in the recommender.

JobError
├── RecommenderError            somebody has to look (terminal)
│   ├── AddressError            the address cannot be bound
│   ├── SnapshotError           an online snapshot is not what its manifest says
│   └── ReleaseError            a file of a release is not what the release says
├── StoredValueError            bytes in Redis that are no Feast value of the declared type (feature_repo.feast_redis)
├── UserFeaturesError           Redis did not answer in time (transient)
├── EventLogError               the stream of events did not take them in time (transient)
├── RankingError                the model server did not answer, or not in time (transient)
└── MeasurementError            a running recommender could not be measured (transient)

None of these ever reaches who asks for recommendations: each stage has a fallback. Who sends events is told.
"""

from __future__ import annotations

from feature_repo.contracts.jobs import JobError, TransientError


class RecommenderError(JobError):
    """The recommender cannot do what it was asked, and will not until somebody changes something."""


class AddressError(RecommenderError):
    """The address that the recommender should listen at cannot be bound."""


class SnapshotError(RecommenderError):
    """An online snapshot's files are not what its manifest says."""


class ReleaseError(RecommenderError):
    """A release cannot be loaded: a file of it is missing, or not what the release says."""


class UserFeaturesError(TransientError):
    """Redis is away or too slow."""


class EventLogError(TransientError):
    """The stream of events is away, too slow or full."""


class RankingError(TransientError):
    """The model server is away, too slow, or refused."""


class MeasurementError(TransientError):
    """The recommender to be measured does not answer."""
