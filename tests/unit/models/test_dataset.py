"""A training set that is not what it says is refused with a clear sentence."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.manifests import TrainingKind
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.signatures import pair_inputs
from models.dataset import TEST, TRAIN, find_training_set, read_dataset
from models.errors import DatasetError
from models.inputs import from_arrow
from tests.movielens import MOVIELENS
from tests.training_set_fixture import rewrite_manifest, write_training_set

LIST = Column("list", Dtype.STRING, "a list", length=3, missing="")


@pytest.fixture
def own(tmp_path):
    namespace = Namespace(tmp_path, "toy")
    return namespace, write_training_set(namespace, rows=200), namespace.training_sets / "toy"


def test_nulls_become_the_columns_missing_value(dataset):
    counts = dataset[TRAIN].features["user_event_count"]
    assert counts.dtype == np.int64
    assert (counts == 0).any()
    assert dataset[TRAIN].features["user_last_items"].shape == (dataset[TRAIN].rows, 10)
    assert dataset[TRAIN].features["user_value_mean"][counts == 0].tolist() == [-1.0] * int((counts == 0).sum())


def test_short_and_absent_lists_are_padded():
    array = pa.chunked_array([pa.array([["a"], None, ["b", "c", "d"]]), pa.array([[], [None, "e"]])])
    received = from_arrow(array, LIST)
    assert received.tolist() == [["a", "", ""], ["", "", ""], ["b", "c", "d"], ["", "", ""], ["", "e", ""]]


def test_equal_texts_are_one_object():
    """Histories have the same ids over and over: as texts of their own they would take gigabytes."""
    received = from_arrow(pa.chunked_array([pa.array([["item", "other"], ["item"]])]), LIST)
    assert received[0, 0] is received[1, 0]


def test_a_list_that_is_too_long_is_refused():
    with pytest.raises(DatasetError, match="at most 3 values, received 4"):
        from_arrow(pa.chunked_array([pa.array([["a", "b", "c", "d"]])]), LIST)


def test_user_codes_are_dense(dataset):
    users = dataset[TEST].users
    assert sorted(set(users.tolist())) == list(range(users.max() + 1))


def test_user_codes_tell_users_apart_and_go_with_their_rows(dataset):
    test = dataset[TEST]
    pairs = set(zip(test.features["user_id"].tolist(), test.users.tolist(), strict=True))
    assert len(pairs) == len({user for user, _ in pairs}) == len({code for _, code in pairs})
    assert test.users is test.users, "they are worked out once, when the split is read"
    some = np.array([5, 3, 3])
    assert test.take(some).users.tolist() == test.users[some].tolist()


def test_a_training_set_for_retrieval_is_refused_with_the_command_that_makes_the_other(own):
    namespace, record, directory = own
    rewrite_manifest(namespace, record, kind=TrainingKind.RETRIEVAL)
    with pytest.raises(DatasetError, match=r"expected one of kind ranking, received retrieval; .*training-set"):
        read_dataset(directory)


def test_a_spec_reads_the_kind_of_rows_that_it_names_and_no_other(own):
    namespace, _, directory = own
    listed = write_training_set(namespace, "listed", rows=300, kind=TrainingKind.LISTS)
    there = namespace.training_sets / "listed"
    whole = read_dataset(there, kind=TrainingKind.LISTS)
    assert whole.signature.pairs.keys() == pair_inputs(MOVIELENS).keys()
    assert {name: split.rows for name, split in whole.splits.items()} == listed.rows
    with pytest.raises(DatasetError, match=r"expected one of kind lists, received ranking; .* --kind lists and --cand"):
        read_dataset(directory, kind=TrainingKind.LISTS)
    with pytest.raises(DatasetError, match=r"expected one of kind ranking, received lists; .*makes, without --kind"):
        read_dataset(there)


def test_an_unknown_id_names_those_that_exist(own):
    with pytest.raises(DatasetError, match=r"'nope'.*expected one of \['toy'\]"):
        find_training_set(own[0], "nope")


def test_other_feature_definitions_are_refused(own):
    namespace, record, directory = own
    rewrite_manifest(namespace, record, feature_hashes=record.feature_hashes | {"user_age": "00000000"})
    with pytest.raises(DatasetError, match=r"\['user_age'\] were computed by another definition"):
        read_dataset(directory)


def test_a_missing_column_is_named(own):
    path = own[2] / "valid.parquet"
    pq.write_table(pq.read_table(path).rename_columns({"user_age": "age"}), path)
    with pytest.raises(DatasetError, match=r"valid\.parquet: expected columns \['user_age'\]"):
        read_dataset(own[2])


def test_some_rows_are_those_that_the_whole_split_has_at_these_places(own):
    directory = own[2]
    table = pq.read_table(directory / "train.parquet")
    pq.write_table(table, directory / "train.parquet", row_group_size=100)
    places = np.sort(np.random.default_rng(1).choice(len(table), 90, replace=False))
    some = read_dataset(directory, (TRAIN,), places=places)[TRAIN]
    expected = read_dataset(directory, (TRAIN,))[TRAIN].take(places)
    assert some.features.keys() == expected.features.keys()
    for name, values in some.features.items():
        np.testing.assert_array_equal(values, expected.features[name])
    np.testing.assert_array_equal(some.labels, expected.labels)
    assert read_dataset(directory, (TRAIN,), places=places[:0])[TRAIN].rows == 0


def test_other_rows_than_promised_are_refused(own):
    path = own[2] / "test.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(DatasetError, match="promises 30 rows, received 29"):
        read_dataset(own[2])


def test_a_broken_file_is_named(own):
    (own[2] / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"train\.parquet: expected a Parquet file"):
        read_dataset(own[2])


def test_a_vocabulary_that_is_missing_is_named(own):
    path = own[2] / "transforms.json"
    record = json.loads(path.read_text())
    del record["vocabularies"]["genres"]
    path.write_text(json.dumps(record))
    with pytest.raises(DatasetError, match="needs vocabulary 'genres'"):
        read_dataset(own[2])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"version": 1}, "expected parameters of version 2, received 1"),
        ({"version": None}, "expected parameters of version 2, received None"),
        ({"columns": {}}, r"column item_id: expected parameters \[\] of .*'vocabulary': 'item'.*, received none"),
    ],
)
def test_parameters_of_another_version_or_of_no_column_are_refused(own, change, fault):
    path = own[2] / "transforms.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DatasetError, match=fault):
        read_dataset(own[2])


def test_parameters_that_were_fitted_for_another_encoding_are_refused(own):
    path = own[2] / "transforms.json"
    record = json.loads(path.read_text())
    del record["columns"]["user_event_count"]["curve"]
    path.write_text(json.dumps(record))
    with pytest.raises(
        DatasetError, match=r"column user_event_count: expected parameters \['mean', 'std'\] of .*'log'"
    ):
        read_dataset(own[2])


def test_one_class_alone_cannot_be_learned(own):
    from models.ranking.catalogue import ranking_model
    from models.training.fit import fit

    path = own[2] / "train.parquet"
    table = pq.read_table(path)
    position = table.schema.get_field_index("label")
    pq.write_table(table.set_column(position, "label", pa.array(np.zeros(len(table), np.int64))), path)
    with pytest.raises(DatasetError, match="expected rows of both classes"):
        model = ranking_model("lr")
        fit(model(model.config_class()), read_dataset(own[2]), 1)


PAIRS = ("pair_item2vec_score", "pair_popular_rank")


@pytest.fixture
def paired(tmp_path):
    namespace = Namespace(tmp_path, "pairs")
    return write_training_set(namespace, "toy", rows=200, pairs=PAIRS), namespace.training_sets / "toy"


def _replaced(path, name, change):
    table = pq.read_table(path)
    column = table.column_names.index(name)
    pq.write_table(table.set_column(column, name, change(table)), path)


def test_pair_features_are_read_like_others(paired):
    _, directory = paired
    dataset = read_dataset(directory, features=("ranking", *PAIRS))
    stored = pq.read_table(directory / "train.parquet")
    for name, missing, dtype in (("pair_item2vec_score", -1e9, np.float32), ("pair_popular_rank", 0, np.int64)):
        read = dataset[TRAIN].features[name]
        assert read.dtype == dtype
        assert stored[name].null_count > 0
        assert np.array_equal(read == missing, stored[name].is_null().to_numpy())
    assert {name for name, pair in dataset.signature.pairs.items()} == set(PAIRS)
    assert read_dataset(directory).signature.pairs == dataset.signature.pairs, "all that the training set has"
    assert not read_dataset(directory, features=("ranking",)).signature.pairs


def test_a_training_set_without_candidates_has_no_pair_features(own):
    said = r"toy: expected pair features \['pair_popular_rank'\] of the spec's feature set, it was built without cand"
    with pytest.raises(DatasetError, match=said):
        read_dataset(own[2], features=("ranking", "pair_popular_rank"))


def test_scores_of_another_definition_are_refused(paired):
    record, directory = paired
    hashes = record.feature_hashes | {"pair_item2vec_score": "00000000"}
    rewrite_manifest(Namespace(directory.parents[3], "pairs"), record, feature_hashes=hashes)
    with pytest.raises(DatasetError, match=r"\['pair_item2vec_score'\] were computed by another definition"):
        read_dataset(directory, features=PAIRS)
    assert read_dataset(directory, features=("ranking", "pair_popular_rank"))


def _one_later(table):
    """Return fit dates of which one, of a row with a score, is a microsecond after its row."""
    dates, times = table["pair_item2vec_fitted_at"].to_pylist(), table["event_time"].to_pylist()
    row = table["pair_item2vec_score"].is_valid().to_pylist().index(True)
    dates[row] = times[row] + timedelta(microseconds=1)
    return pa.array(dates, table["event_time"].type)


@pytest.mark.parametrize("split", ["train", "valid", "test", "test_as_of_refresh"])
def test_a_score_of_a_later_fit_is_knowledge_of_the_future(paired, split):
    path = paired[1] / f"{split}.parquet"
    _replaced(path, "pair_item2vec_fitted_at", _one_later)
    said = (
        rf"{split}\.parquet: column pair_item2vec_score: expected figures of fits at or before .* received 1 of later"
    )
    with pytest.raises(DatasetError, match=said):
        read_dataset(paired[1], features=PAIRS)
    assert read_dataset(paired[1], features=("ranking", "pair_popular_rank")), "it concerns who reads it"


def test_a_fit_of_the_row_s_own_moment_knows_what_came_before_it(paired):
    for split in paired[0].rows:
        _replaced(paired[1] / f"{split}.parquet", "pair_item2vec_fitted_at", lambda table: table["event_time"])
    assert read_dataset(paired[1], features=PAIRS)


def test_a_score_needs_a_date_and_what_is_missing_needs_none(paired):
    path = paired[1] / "train.parquet"
    assert pq.read_table(path)["pair_popular_fitted_at"].null_count > 0
    _replaced(path, "pair_popular_fitted_at", lambda table: pa.nulls(len(table), table["pair_popular_fitted_at"].type))
    with pytest.raises(DatasetError, match=r"pair_popular_rank: .* or without a date, the first in row \d+, of .*None"):
        read_dataset(paired[1], features=PAIRS)
    pq.write_table(pq.read_table(path).drop_columns(["pair_popular_fitted_at"]), path)
    with pytest.raises(DatasetError, match=r"train\.parquet: expected columns \['pair_popular_fitted_at'\]"):
        read_dataset(paired[1], features=PAIRS)
