"""What of a champion can be compared with a candidate that reads other features."""

from __future__ import annotations

from dataclasses import replace

import pytest

from feature_repo.contracts.channels import channels
from feature_repo.contracts.signatures import ranking
from models.errors import DatasetError
from models.evaluation.champion import why_incomparable
from tests.movielens import FEATURES, MOVIELENS


def _inputs(*features):
    return {column.name for column in ranking(MOVIELENS, features).input_columns}


def test_a_champion_of_fewer_features_is_compared(dataset):
    assert why_incomparable(dataset.record, _inputs("item_activity"), dataset, "champion version 1") == ""


def test_a_champion_whose_features_this_training_set_lacks_names_the_setting(dataset):
    wide = replace(dataset.record, feature_hashes=FEATURES.ranking_windows.feature_hashes)
    with pytest.raises(
        DatasetError, match=r"expected \['item_trend'\], which champion version 1 reads, .*_WINDOWS=true"
    ):
        why_incomparable(wide, _inputs("ranking", "item_trend"), dataset, "champion version 1")


def test_a_champion_of_features_that_are_defined_otherwise_now_is_not_compared(dataset):
    theirs = replace(dataset.record, feature_hashes=dataset.record.feature_hashes | {"item_value_mean": "0" * 8})
    assert "its inputs ['item_value_mean'] are defined otherwise now" in why_incomparable(
        theirs, _inputs("item_activity"), dataset, "1"
    )
    assert why_incomparable(theirs, _inputs("item_event_count"), dataset, "champion version 1") == ""
    assert "['item_shoe_size']" in why_incomparable(dataset.record, {"item_shoe_size"}, dataset, "champion version 1")


def test_a_champion_of_pair_features_is_compared_where_they_are_there_and_defined_alike(dataset):
    name, definition = "pair_item2vec_score", channels(MOVIELENS)["item2vec"].definition
    inputs, hashes = _inputs("item_activity", name), dataset.record.feature_hashes | {name: definition}
    theirs = replace(dataset.record, feature_hashes=hashes)
    assert why_incomparable(theirs, inputs, replace(dataset, record=theirs), "champion version 1") == ""
    why = why_incomparable(theirs, inputs, dataset, "champion version 1")
    assert "cannot be compared on rows: those of training set toy, of kind ranking, say nothing of 1 pair" in why
    assert f"such as {name}" in why
    other = replace(theirs, feature_hashes=hashes | {name: "0" * 8})
    assert f"['{name}'] are defined otherwise now" in why_incomparable(other, inputs, dataset, "champion version 1")


def test_a_champion_that_has_learned_from_test_rows_is_not_compared_on_them(dataset):
    later = replace(dataset.record, valid_end="1999-01-01T00:00:00+00:00")
    why = why_incomparable(later, _inputs("item_activity"), dataset, "champion version 1")
    assert why.startswith(
        "champion version 1 cannot be compared on rows: it has learned from events up to 1999-01-01T00"
    )
    assert f"the test rows begin at {dataset.record.valid_end}" in why
    assert "`python -m models refit` fits its spec again" in why
    equal = replace(later, valid_end=dataset.record.valid_end)
    assert why_incomparable(equal, _inputs("item_activity"), dataset, "champion version 1") == ""
