"""Specs: what is trained is declared, checked where it is read, and told apart by its name."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from feature_repo.contracts.channels import channels
from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.features import declared
from feature_repo.contracts.manifests import TrainingKind
from feature_repo.contracts.objectives import OBJECTIVES, Metric
from feature_repo.contracts.on_demand import Computation, on_demand
from feature_repo.contracts.schemas import MOVIELENS
from feature_repo.contracts.signatures import pair_inputs, ranking
from models.errors import CandidateError, SpecError
from models.evaluation.table import RESERVED
from models.gates.margins import read_margins
from models.settings import Settings
from models.specs.spec import Role, Spec, parse_spec, read_specs
from models.training.choose import Deciding, winner_of

SHIPPED = read_specs("ranking")
FOLLOWING = replace(MOVIELENS, has_relations=True)
BARE = replace(MOVIELENS, item_attributes=(), user_attributes=())


def _own(tmp_path, *specs, **others):
    path = tmp_path / "specs.yaml"
    path.write_text(yaml.safe_dump({"choose_by": "auc", "specs": list(specs)} | others), encoding="utf-8")
    return path


def test_reading_specs_needs_no_tensorflow():
    code = "import sys, models.specs.spec, models.training.choose; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_shipped_has_a_candidate_and_every_baseline_that_gates_name():
    named = {margin.reference for margin in read_margins("ranking").comparisons} - RESERVED
    assert named == {"lr"}
    assert all(SHIPPED.named(name).role is Role.BASELINE for name in named)
    assert not SHIPPED.named("lr").may_be_champion
    assert any(spec.may_be_champion for spec in SHIPPED.specs)


def test_one_class_in_several_specs_and_configs_as_deep_as_they_say(tmp_path):
    own = read_specs(
        "ranking",
        _own(
            tmp_path,
            {"name": "narrow", "class": "deepfm", "config": {"hidden": [8], "fit": {"epochs": 2}}},
            {"name": "wide", "class": "deepfm"},
            {"name": "lr", "role": "baseline", "may_be_champion": True},
        ),
    )
    narrow, wide, lr = (spec.model().config for spec in own.specs)
    assert (narrow.hidden, wide.hidden) == ((8,), (64, 32))
    assert narrow.fit == wide.fit.model_copy(update={"epochs": 2}), "the class's own rate and batches stay"
    assert [spec.may_be_champion for spec in own.specs] == [True, True, True]
    assert lr.l2 == SHIPPED.named("lr").model().config.l2


def test_a_record_is_the_spec_with_its_whole_config():
    spec = Spec.model_validate({"name": "small", "class": "deepfm", "config": {"hidden": [4]}}).whole()
    record = spec.record()
    assert record["config"]["dropout"] == spec.model().config.dropout
    again = parse_spec(record)
    assert again.record() == record
    assert again.model().config == spec.model().config


def test_a_champions_spec_is_fitted_again_under_a_name_of_its_own_and_never_competes():
    for spec in (Spec(name="lr", role="baseline", may_be_champion=True).whole(), SHIPPED.named("lists").whole()):
        again = spec.standing_in("7")
        assert parse_spec(again.record()) == again
        assert (again.name, again.role, again.may_be_champion) == ("champion-7", Role.CHAMPION, False)
        assert again.definition == spec.definition


@pytest.mark.parametrize(
    "change", [{"class": "mlp"}, {"objective": "pairwise"}, {"features": ["item_activity"]}, {"config": {"l2": 0.5}}]
)
def test_specs_of_one_definition_are_told_from_others(change):
    def defined(**given):
        return Spec.model_validate({"name": "a", "class": "lr"} | given).whole().definition

    assert defined() == defined(name="b", role="baseline")
    assert defined() != defined(**change)


def test_a_run_may_train_some_with_other_configs():
    chosen = SHIPPED.chosen(["deepfm"], {"deepfm": {"fit": {"epochs": 1}}})
    assert [spec.name for spec in chosen.specs] == ["deepfm"]
    assert chosen.specs[0].model().config.fit.epochs == 1
    assert SHIPPED.chosen().specs == tuple(spec.whole() for spec in SHIPPED.specs)


@pytest.mark.parametrize(
    ("names", "configs", "told"),
    [
        (["deepfn"], None, r"spec 'deepfn': expected one of \['deepfm', 'lists', 'lists_linear', 'lr'\]"),
        ([], {"deepfn": {}}, r"spec 'deepfn': expected one of"),
        (["lr"], None, r"specs \['lr'\]: expected one that may be champion"),
        ([], {"deepfm": {"hiden": [8]}}, "config of spec 'deepfm': hiden: Extra inputs are not permitted, received"),
        ([], {"deepfm": {"fit": {"epochs": 0}}}, "fit.epochs: Input should be greater than or equal to 1, received 0"),
        ([], {"deepfm": {"hidden": [-3]}}, "hidden.0: Input should be greater than or equal to 1, received -3"),
        ([], {"deepfm": {"hidden": [0]}}, "hidden.0: Input should be greater than or equal to 1, received 0"),
        ([], {"deepfm": {"hidden": [10**11]}}, "hidden.0: Input should be less than or equal to 8192, received"),
        ([], {"deepfm": {"hidden": [8] * 17}}, "hidden: List should have at most 16 items, not 17"),
        ([], {"deepfm": {"hidden": 8}}, "hidden: Input should be a list, received 8"),
        ([], {"deepfm": {"l2": float("inf")}}, "l2: Input should be a finite number, received inf"),
        ([], {"lr": {"l2": float("nan")}}, "l2: Input should be a finite number, received nan"),
        ([], {"lr": {"fit": {"learning_rate": float("inf")}}}, "fit.learning_rate: Input should be a finite number"),
        ([], {"lr": {"fit": {"epochs": True}}}, "fit.epochs: Input should be a valid integer, received True"),
        ([], {"lr": {"l2": True}}, "l2: Input should be a valid number, received True"),
        (
            [],
            {"lr": {"on_demand": ["hour", "nope"]}},
            r"config of spec 'lr': on_demand \['nope'\]: expected names among",
        ),
        ([], {"deepfm": 3}, "config of spec 'deepfm': expected an object of its fields, received 3"),
    ],
)
def test_what_a_run_cannot_train_is_refused(names, configs, told):
    with pytest.raises(SpecError, match=told):
        SHIPPED.chosen(names, configs)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"name": "nobody"}, "model 'nobody': expected one of"),
        ({"name": "x", "class": "deepfm", "role": "winner"}, "role: Input should be 'candidate', 'baseline' or"),
        ({"name": "../x", "class": "deepfm"}, "specs.0.name: String should match pattern"),
        ({"name": "champion", "class": "deepfm"}, "name 'champion': expected another than"),
        ({"name": "champion-7", "class": "lr"}, "name 'champion-7', role candidate: expected names that begin with"),
        ({"name": "seven", "class": "lr", "role": "champion"}, "name 'seven', role champion: expected names that"),
        (
            {"name": "champion-7", "class": "lr", "role": "champion"},
            r"specs \['champion-7'\]: expected the role candidate or baseline, received champion; a run makes",
        ),
        ({"name": "x", "class": "deepfm", "kind": 1}, "specs.0.kind: Extra inputs are not permitted"),
        ({"class": "deepfm"}, "specs.0.name: "),
        ("deepfm", "specs.0: Input should be names and values, received 'deepfm'; .*ranking.yaml is an example$"),
        ({"name": "lr", "features": ["nope"]}, r"specs.0: features \['nope'\]: expected names among"),
        ({"name": "lr", "rows": "retrieval"}, "specs.0: rows 'retrieval': expected 'ranking' or 'lists'"),
        (
            {"name": "lr", "features": ["ranking", "pair_ease_score"]},
            r"specs.0: features \['pair_ease_score'\]: expected rows: lists, received rows: ranking",
        ),
        ({"name": "lr", "features": ["pair_nope_rank", "user_x"]}, r"features \['pair_nope_rank'\]: expected"),
        ({"name": "lr", "features": "ranking"}, "specs.0.features: Input should be a list, received 'ranking'"),
    ],
)
def test_a_wrong_spec_is_refused_with_its_place(tmp_path, spec, told):
    with pytest.raises(SpecError, match=rf"specs\.yaml: .*{told}"):
        read_specs("ranking", _own(tmp_path, spec))


def test_every_name_that_a_schema_gives_may_be_in_a_spec():
    """Which of them a data set's own schema gives, `train` knows."""
    for schema in (MOVIELENS, FOLLOWING):
        known = declared(schema).known_by_time
        names = {group.name for group in known.groups} | {
            column.name for group in known.groups for column in group.features
        }
        services = {service.name for service in declared(schema).services}
        assert Spec(name="lr", features=(*names, *services))
        assert Spec(name="lr", features=(*names, *services, *pair_inputs(schema)), rows="lists")
        computed = [each.name for each in on_demand(schema)]
        assert Spec(name="lr", config={"on_demand": [*computed, *Computation]}).model()


def test_a_key_twice_is_refused_and_a_number_may_be_written_as_in_json(tmp_path):
    path = tmp_path / "specs.yaml"
    twice = "choose_by: auc\nspecs:\n  - name: lr\n    config:\n      l2: 1e-3\n"
    path.write_text(twice, encoding="utf-8")
    assert read_specs("ranking", path).named("lr").model().config.l2 == 1e-3
    path.write_text(twice + "      l2: 0.1\n", encoding="utf-8")
    with pytest.raises(
        SpecError, match=r"expected a YAML file of specs .*, received the key 'l2' of line 5 again in line 6"
    ):
        read_specs("ranking", path)


def test_a_list_all_of_whose_specs_are_wrong_is_not_called_empty(tmp_path):
    with pytest.raises(SpecError, match=r"specs\.0\.role: Input should be") as raised:
        read_specs("ranking", _own(tmp_path, {"name": "lr", "role": "x"}))
    assert "at least" not in str(raised.value)
    assert "factory" not in str(raised.value)
    with pytest.raises(SpecError, match=r"specs: List should have at least 1 item, not 0, received \[\]"):
        read_specs("ranking", _own(tmp_path))


def test_an_empty_setting_is_the_default(monkeypatch):
    monkeypatch.setenv("KESTREL_MODEL_SPECS", "")
    monkeypatch.setenv("KESTREL_SEED", "")
    assert (Settings().model_specs, Settings().seed) == (None, Settings.model_fields["seed"].default)


def test_a_wrong_file_of_gates_ends_the_first_task_of_a_run(tmp_path):
    own = tmp_path / "margins.yaml"
    shipped = read_margins("ranking").model_dump(mode="json")
    own.write_text(yaml.safe_dump(shipped | {"limits": shipped["limits"] | {"calibration_shift": 9}}), encoding="utf-8")
    environ = os.environ | {"KESTREL_GATE_MARGINS": str(own), "KESTREL_STATE": str(tmp_path)}
    command = [sys.executable, "-m", "models", "specs"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == ExitCode.TERMINAL
    assert "limits.calibration_shift: Input should be less than or equal to 1, received 9" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_name_twice_another_metric_and_no_file_are_refused(tmp_path):
    with pytest.raises(SpecError, match=r"specs \['lr'\]: expected each name once"):
        read_specs("ranking", _own(tmp_path, {"name": "lr"}, {"name": "lr"}))
    with pytest.raises(
        SpecError, match="choose_by: Input should be 'auc', 'gauc', 'log_loss', 'rmse' or 'ndcg_at_10', received 'ndcg'"
    ):
        read_specs("ranking", _own(tmp_path, {"name": "lr"}, choose_by="ndcg"))
    with pytest.raises(SpecError, match=r"none\.yaml: expected a YAML file of specs"):
        read_specs("ranking", tmp_path / "none.yaml")
    (tmp_path / "specs.yaml").write_text("[", encoding="utf-8")
    with pytest.raises(SpecError, match=r"specs\.yaml: expected a YAML file of specs"):
        read_specs("ranking", tmp_path / "specs.yaml")


@pytest.mark.parametrize(
    ("figures", "choose_by", "winner"),
    [
        ({"a": 0.7, "b": 0.8}, Metric.AUC, "b"),
        ({"a": 0.7, "b": 0.8}, Metric.NDCG, "b"),
        ({"a": 0.7, "b": 0.8}, Metric.LOG_LOSS, "a"),
        ({"a": 0.7, "b": 0.7}, Metric.AUC, "a"),
        ({"a": None, "b": 0.1}, Metric.GAUC, "b"),
    ],
)
def test_the_best_figure_wins_and_the_first_of_equal_ones(figures, choose_by, winner):
    assert winner_of(Deciding(choose_by, figures)) == winner


def test_no_figure_chooses_nobody():
    with pytest.raises(CandidateError, match=r"gauc of the validation rows: expected a figure of one of \['a'\]"):
        winner_of(Deciding(Metric.GAUC, {"a": None}))
    with pytest.raises(CandidateError, match="ndcg_at_10 of the lists at the validation origin: expected a figure"):
        winner_of(Deciding(Metric.NDCG, {"a": None}))
    with pytest.raises(CandidateError, match=r"expected trained specs of rows: ranking .*, and too short"):
        winner_of(Deciding(Metric.LOG_LOSS, {}, "too short"))


def test_a_spec_names_its_features_and_its_objective(tmp_path):
    (spec,) = read_specs(
        "ranking",
        _own(tmp_path, {"name": "lr", "features": ["item_activity"], "objective": "pairwise"}, choose_by="gauc"),
    ).specs
    assert (spec.features, spec.learned) == (("item_activity",), OBJECTIVES["pairwise"])
    assert parse_spec(spec.record()) == spec
    assert (SHIPPED.named("lr").features, SHIPPED.named("lr").objective) == (("ranking",), "probability")
    with pytest.raises(SpecError, match="objective 'clicks': expected one of"):
        read_specs("ranking", _own(tmp_path, {"name": "lr", "objective": "clicks"}))


def test_the_metric_that_chooses_is_one_that_every_competitor_has(tmp_path):
    mixed = ({"name": "deepfm"}, {"name": "lr", "objective": "listwise"})
    assert read_specs("ranking", _own(tmp_path, *mixed, choose_by="gauc")).row_metric is Metric.GAUC
    for metric, lacking in (("log_loss", "listwise"), ("auc", "listwise"), ("rmse", "listwise")):
        said = rf"choose_by {metric}: .*'lr': '{lacking}'}} lack it; all have \['gauc'\]"
        with pytest.raises(SpecError, match=said):
            read_specs("ranking", _own(tmp_path, *mixed, choose_by=metric))
    baseline = mixed[1] | {"role": "baseline"}
    assert read_specs("ranking", _own(tmp_path, mixed[0], baseline, choose_by="log_loss")).specs


LISTS = {"name": "lists", "class": "mlp", "rows": "lists", "objective": "listwise", "features": ["pair_ease_score"]}


def test_lists_compare_whatever_is_learned_and_rows_only_what_learned_from_the_same(tmp_path):
    both = ({"name": "deepfm"}, LISTS)
    specs = read_specs("ranking", _own(tmp_path, *both, choose_by="ndcg_at_10"))
    assert (specs.row_metric, [spec.name for spec in specs.by_rows]) == (Metric.LOG_LOSS, ["deepfm"])
    with pytest.raises(SpecError, match=r"choose_by gauc: expected .* of the same rows, .*: choose by ndcg_at_10"):
        read_specs("ranking", _own(tmp_path, *both, choose_by="gauc"))
    alone = read_specs("ranking", _own(tmp_path, LISTS, LISTS | {"name": "other"}, choose_by="gauc"))
    assert [spec.name for spec in alone.by_rows] == ["lists", "other"]
    assert all(spec.rows is TrainingKind.LISTS for spec in alone.by_rows)


def test_what_decides_without_lists_is_a_metric_of_the_rows_that_compete_then(tmp_path):
    order = {"name": "deepfm", "objective": "pairwise"}
    with pytest.raises(SpecError, match=r"choose_without_lists log_loss: .*'deepfm': 'pairwise'} lack it"):
        read_specs("ranking", _own(tmp_path, order, LISTS, choose_by="ndcg_at_10"))
    given = {"choose_by": "ndcg_at_10", "choose_without_lists": "gauc"}
    assert read_specs("ranking", _own(tmp_path, order, LISTS, **given)).row_metric is Metric.GAUC
    with pytest.raises(SpecError, match="choose_without_lists ndcg_at_10: expected a metric of rows"):
        read_specs("ranking", _own(tmp_path, LISTS, **given | {"choose_without_lists": "ndcg_at_10"}))


@pytest.mark.parametrize("schema", [MOVIELENS, FOLLOWING, BARE, replace(BARE, is_implicit=True)])
def test_every_schema_has_what_the_shipped_specs_read(schema):
    for spec in SHIPPED.specs:
        signature = ranking(schema, spec.features, spec.learned)
        assert bool(signature.pairs) is (spec.rows is TrainingKind.LISTS)
    linear, lists = SHIPPED.named("lists_linear"), SHIPPED.named("lists")
    assert linear.features == lists.features
    assert {each.name for each in channels(schema).values() if each.table} <= {
        pair.channel for pair in ranking(schema, lists.features).pairs.values()
    }, "every fitted channel is heard"
