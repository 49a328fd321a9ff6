"""What can go wrong around Feast.

JobError
├── FeatureTableMissingError    a feature view has no files to read
├── RegistryError               Feast's registry does not hold what the code declares
├── EntityRowsError             the rows to be joined lack a column, or have one too many
├── RowCountError               a join lost or multiplied rows: a defect, never data
├── CorruptDatasetError
│   └── RepeatedFeatureRowError two rows of one key and time: which one holds?
└── TransientError
    └── OnlineStoreError        Redis cannot be reached, or is busy

A Redis that refuses for good (a wrong password) is a plain JobError.
"""

from __future__ import annotations

from pipelines.errors import CorruptDatasetError, JobError, TransientError


class FeatureTableMissingError(JobError):
    """A feature view's files do not exist."""


class RegistryError(JobError):
    """Feast's registry does not hold the views and services that the code declares."""


class EntityRowsError(JobError):
    """The rows that features were asked for do not have the columns that the join needs."""


class RowCountError(JobError):
    """As many rows must leave a join as entered it."""


class RepeatedFeatureRowError(CorruptDatasetError):
    """A feature table has more than one row for a key and a time."""


class OnlineStoreError(TransientError):
    """The online store does not answer."""
