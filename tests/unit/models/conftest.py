"""One small training set in memory for the model plane's unit tests."""

from __future__ import annotations

import pytest

from feature_repo.contracts.places import Namespace
from tests.movielens import FEATURES
from tests.training_set_fixture import write_training_set


@pytest.fixture(scope="session")
def namespace(tmp_path_factory):
    namespace = Namespace(tmp_path_factory.mktemp("state"), "toy")
    write_training_set(namespace)
    return namespace


@pytest.fixture(scope="session")
def dataset(namespace):
    from models.dataset import read_dataset

    return read_dataset(namespace.training_sets / "toy")


@pytest.fixture(scope="session")
def sequences(namespace):
    """The same kind of rows, whose users have histories of up to 50 events with times, types, values and sessions."""
    from models.dataset import read_dataset

    write_training_set(namespace, "sequences", service=FEATURES.retrieval)
    return read_dataset(namespace.training_sets / "sequences", features=("ranking", "user_sequence"))
