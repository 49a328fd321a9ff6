"""What stops a benchmark.

JobError
└── BenchError      something that it measures is missing, or did not do what is to be measured
"""

from feature_repo.contracts.jobs import JobError


class BenchError(JobError):
    """A benchmark cannot run, or its figures would mean nothing."""
