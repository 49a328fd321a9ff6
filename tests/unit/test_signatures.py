"""A signature belongs to its model: it follows from a feature set, and what is stored tells a caller everything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from feature_repo.contracts.channels import channels
from feature_repo.contracts.features import declared
from feature_repo.contracts.objectives import OBJECTIVES, PAIRWISE, PROBABILITY
from feature_repo.contracts.publishing import CorruptRecordError, write_json
from feature_repo.contracts.signatures import (
    SIGNATURE_FILE,
    ModelInput,
    Scope,
    Signature,
    UnknownFeaturesError,
    ranking,
    read_signature,
)
from tests.movielens import FEATURES, MOVIELENS, RANKING

ALWAYS = ["item_id", "request_time"]


def test_a_feature_set_names_services_groups_and_single_features():
    assert ranking(MOVIELENS) is not ranking(MOVIELENS, ("ranking_windows",))
    assert ranking(MOVIELENS, ("ranking",)).inputs == RANKING.inputs
    names = [column.name for column in ranking(MOVIELENS, ("item_event_count", "user_windows")).input_columns]
    assert names == [*ALWAYS, "item_event_count", *(column.name for column in FEATURES.user_windows.features)]


def test_a_model_reads_the_views_of_its_own_inputs_alone():
    assert ranking(MOVIELENS, ("item_event_count",)).views == {"item_activity": FEATURES.item_activity.view_name}
    assert RANKING.views == FEATURES.ranking.views
    assert ranking(MOVIELENS, ("ranking_windows",)).views == FEATURES.ranking_windows.views


def test_what_the_graph_computes_needs_its_inputs():
    assert {each.name for each in ranking(MOVIELENS, ("item_activity",)).on_demand} == {
        each.name for each in RANKING.on_demand if all(not name.startswith("user_") for name in each.inputs)
    } - {"genres_match", "release_year_match"}


@pytest.mark.parametrize("name", ["user_history", "user_seen_items", "user_activity_time", "nothing"])
def test_what_is_not_known_as_of_a_label_is_no_feature(name):
    with pytest.raises(UnknownFeaturesError, match=f"features \\['{name}'\\]: expected names of services"):
        ranking(MOVIELENS, ("ranking", name))


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_what_is_stored_tells_a_caller_everything(tmp_path, objective):
    signature = ranking(MOVIELENS, ("ranking_windows",), objective)
    write_json(tmp_path / SIGNATURE_FILE, signature.to_json())
    stored = read_signature(tmp_path)
    assert stored.objective == objective
    assert (stored.model, stored.views, stored.output.name) == (signature.model, signature.views, "score")
    for one, other in zip(stored.inputs, signature.inputs, strict=True):
        assert (one.scope, one.group, one.view) == (other.scope, other.group, other.view)
        assert one.column.definition | {"revision": 1} == other.column.definition | {"revision": 1}
    assert stored.to_json() == signature.to_json()


def test_a_reader_passes_over_what_it_does_not_know():
    record = RANKING.to_json() | {"later": 1}
    record["inputs"] = [each | {"later": 1} for each in record["inputs"]]
    record["objective"] |= {"later": 1}
    assert Signature.from_json(record, "x").to_json() == RANKING.to_json()


@pytest.mark.parametrize("field", ["name", "dtype", "length", "missing", "scope", "group", "view"])
def test_a_field_that_decides_scores_has_no_default(field):
    record = RANKING.to_json()
    record["inputs"][3].pop(field)
    with pytest.raises(CorruptRecordError, match=f"x: not the signature of a model: KeyError\\('{field}'\\)"):
        Signature.from_json(record, "x")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 99}, "field format: expected 1 to 2, received 99"),
        ({"format": True}, "received True"),
        ({"inputs": None}, "not the signature of a model"),
        ({"objective": {"name": "probability"}}, "x, objective: not an objective"),
        ({"output": "Not a name"}, "not the signature of a model"),
    ],
)
def test_something_else_is_no_signature(change, said):
    with pytest.raises(CorruptRecordError, match=said):
        Signature.from_json(RANKING.to_json() | change, "x")


def test_a_pair_feature_is_stored_with_channel_figure_and_definition():
    signature = ranking(MOVIELENS, ("item_event_count", "pair_popular_rank", "pair_item2vec_score"))
    found = {channel.name: channel for channel in channels(MOVIELENS).values()}
    assert [column.name for column in signature.scoped(Scope.PAIR)] == ["pair_popular_rank", "pair_item2vec_score"]
    assert signature.pairs["pair_item2vec_score"].definition == found["item2vec"].definition
    record = signature.to_json()
    assert record["format"] == 2
    assert record["inputs"][-1] | {"meaning": ""} == {
        "name": "pair_item2vec_score",
        "dtype": "float32",
        "length": 0,
        "missing": -1e9,
        "scope": "pair",
        "group": "",
        "view": "",
        "meaning": "",
        "pair": {"channel": "item2vec", "figure": "score", "definition": found["item2vec"].definition},
    }
    assert Signature.from_json(record, "x").pairs == signature.pairs
    for field in ("channel", "figure", "definition"):
        broken = signature.to_json()
        broken["inputs"][-1]["pair"].pop(field)
        with pytest.raises(CorruptRecordError, match=f"KeyError\\('{field}'\\)"):
            Signature.from_json(broken, "x")


def test_a_signature_without_pairs_is_stored_as_before_there_were_any():
    record = RANKING.to_json()
    assert record["format"] == 1
    assert not any("pair" in each for each in record["inputs"])


def test_only_an_input_of_a_pair_says_a_channel():
    (pair, column), *_ = channels(MOVIELENS)["popular"].features
    for scope, given in ((Scope.PAIR, None), (Scope.ITEM, pair)):
        with pytest.raises(ValueError, match="input pair_popular_rank: expected a pair feature in the scope pair, and"):
            ModelInput(column, scope, pair=given)


def test_a_channel_has_a_rank_and_a_score_if_it_measures():
    names = {name: [column.name for _, column in each.features] for name, each in channels(MOVIELENS).items()}
    assert names["popular"] == ["pair_popular_rank"]
    assert names["item2vec"] == ["pair_item2vec_score", "pair_item2vec_rank"]
    assert "circle" not in names
    assert "circle" in channels(replace(MOVIELENS, has_relations=True))


def test_a_channel_of_other_parameters_is_another():
    channel = channels(MOVIELENS)["item2vec"]
    other = replace(channel, parameters={**channel.parameters, "view": "user_item2vec_00000000"})
    assert other.definition != channel.definition
    assert replace(channel, meaning="Other words").definition == channel.definition


def test_what_is_computed_of_user_and_item_is_of_the_pair():
    assert Scope.of_all([Scope.USER, Scope.USER]) is Scope.USER
    assert Scope.of_all([Scope.ITEM]) is Scope.ITEM
    assert Scope.of_all([Scope.USER, Scope.ITEM]) is Scope.PAIR
    assert Scope.of_all([Scope.ITEM, Scope.PAIR]) is Scope.PAIR


def test_a_saved_model_without_one_says_so(tmp_path):
    with pytest.raises(
        CorruptRecordError, match=r"expected the file assets\.extra/kestrel_signature\.json, found none"
    ):
        read_signature(tmp_path)


def test_a_score_is_a_probability_where_the_objective_says_so():
    assert {name for name, each in OBJECTIVES.items() if each.probability} == {"probability", "taken_and_liked"}
    assert all(("log_loss" in each.metrics) == each.probability for each in OBJECTIVES.values())
    assert all(each.metric in each.metrics for each in OBJECTIVES.values())
    assert ranking(MOVIELENS, objective=PAIRWISE).objective is PAIRWISE
    assert RANKING.objective is PROBABILITY


def test_a_feature_group_is_of_a_user_or_an_item():
    assert {each.scope for each in RANKING.inputs} == {Scope.USER, Scope.ITEM}
    assert declared(MOVIELENS).known_by_time.views.keys() >= set(FEATURES.retrieval.views)
