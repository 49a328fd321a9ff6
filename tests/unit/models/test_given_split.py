"""Data that others have divided: what is read of it, what is refused, and the rows of the benchmark."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from feature_repo.contracts.signatures import ModelInput, Scope
from models.benchmark.boosted import BoostedConfig
from models.benchmark.given_split import read_given_split
from models.benchmark.job import benchmark, model_of
from models.benchmark.presets import Presets, preset_of, read_presets
from models.benchmark.protocols import Protocol
from models.dataset import TEST, TRAIN, VALID
from models.encoding import build_encoder
from models.errors import BenchmarkError, DatasetError, SpecError
from models.ranking.catalogue import RANKING_MODELS
from tests.gradients import unreached

DECLARED = {
    "label": "clicked",
    "group": "User",
    "fields": [
        {"name": "User", "type": "categorical", "of": "user"},
        {"name": "item id", "type": "categorical"},
        {"name": "seen", "type": "sequence", "shares": "item id", "of": "user"},
        {"name": "price", "type": "numeric"},
    ],
}
ROWS = {TRAIN: 1200, VALID: 300, TEST: 400}


def _rows(seed, rows):
    """Return rows that are clicked where a user's taste and an item's kind are the same."""
    dice = np.random.default_rng(seed)
    users, items = dice.integers(0, 20, rows), dice.integers(0, 30, rows)
    likes = np.where(dice.random(rows) < 0.9, users % 3 == items % 3, dice.random(rows) < 0.5)
    seen = [[f"i{item}" for item in dice.integers(0, 30, dice.integers(0, 4))] for _ in range(rows)]
    return {
        "clicked": likes.astype(np.int64),
        "User": [f"u{user}" for user in users],
        "item id": [f"i{item}" for item in items],
        "seen": seen,
        "price": np.where(items % 5 == 0, np.nan, items * 1.5),
    }


def _write(folder, kind="csv", declared=None, **changes):
    """Write a folder; `changes` are columns of train."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.yaml").write_text(yaml.safe_dump(declared or DECLARED), encoding="utf-8")
    for seed, (name, rows) in enumerate(ROWS.items()):
        columns = _rows(seed, rows) | (changes if name == TRAIN else {})
        table = pa.table({column: pa.array(values, from_pandas=True) for column, values in columns.items()})
        if kind == "parquet":
            pq.write_table(table, folder / f"{name}.parquet")
            continue
        text = [" ".join(each) if isinstance(each, list) else each for each in table["seen"].to_pylist()]
        place = table.column_names.index("seen")
        pa_csv.write_csv(table.set_column(place, "seen", pa.array(text)), folder / f"{name}.csv")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("given") / "csv")


def test_text_and_parquet_are_the_same_rows(folder, tmp_path):
    text, parquet = read_given_split(folder), read_given_split(_write(tmp_path / "parquet", "parquet"))
    assert text.signature == parquet.signature
    assert text.transforms == parquet.transforms
    for name, rows in ROWS.items():
        assert text[name].rows == parquet[name].rows == rows
        for column, values in text[name].features.items():
            np.testing.assert_array_equal(values, parquet[name].features[column])
        np.testing.assert_array_equal(text[name].labels, _rows(list(ROWS).index(name), rows)["clicked"])


def test_fields_become_columns(folder):
    given = read_given_split(folder)
    user, item, seen, price = given.signature.input_columns
    assert [user.name, item.name, seen.name, price.name] == ["user", "item_id", "seen", "price"]
    assert seen.vocabulary == item.vocabulary
    assert seen.length == 3
    assert [each.scope for each in given.signature.inputs] == [Scope.USER, Scope.ITEM, Scope.USER, Scope.ITEM]
    assert set(given.transforms.vocabularies) == {"user", "item_id"}
    rows = _rows(0, ROWS[TRAIN])
    known = rows["price"][np.isfinite(rows["price"])]
    assert given.transforms.scalings["price"].centre == pytest.approx(known.mean())
    assert given.transforms.scalings["price"].scale == pytest.approx(known.std())
    assert given[TRAIN].users.max() == 19


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"clicked": [2] * 1200}, r"column clicked: expected labels of 0 and 1 on every row, received \[2"),
        ({"price": ["dear"] * 1200}, r"train.parquet: column price: expected numbers, received string"),
        ({"seen": [1] * 1200}, None),
    ],
)
def test_columns_of_another_kind_are_refused(change, told, tmp_path):
    folder = _write(tmp_path, "parquet", **change)
    if told is None:
        assert read_given_split(folder)[TRAIN].features["seen"][0].tolist() == ["1", "", ""]
        return
    with pytest.raises(DatasetError, match=told):
        read_given_split(folder)


def test_nan_is_missing_and_beyond_float32_is_refused(folder, tmp_path):
    columns = _rows(0, 1200)
    whole = _write(tmp_path / "nan", "parquet")
    pq.write_table(
        pa.table(columns | {"price": pa.array(columns["price"], from_pandas=False)}), whole / "train.parquet"
    )
    assert pq.read_table(whole / "train.parquet")["price"].null_count == 0, "NaN, and no null"
    assert read_given_split(whole).transforms == read_given_split(folder).transforms
    with pytest.raises(DatasetError, match=r"column price: expected numbers nearer to 0 than 1e\+30, received inf"):
        read_given_split(_write(tmp_path / "inf", "parquet", price=[np.inf] * 1200))


def test_names_that_columns_cannot_have_are_told_apart(tmp_path):
    names = ["x", "x_2", "X", "\u7528\u6237", "score"]
    declared = {"label": "clicked", "fields": [{"name": name, "type": "categorical"} for name in names]}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")
    for split in ROWS:
        pq.write_table(
            pa.table({"clicked": [0, 1], **{name: ["a", "b"] for name in names}}), tmp_path / f"{split}.parquet"
        )
    columns = [column.name for column in read_given_split(tmp_path).signature.input_columns]
    assert columns == ["x", "x_2", "x_", "field", "score_"]


def test_a_column_that_stands_twice_is_named(tmp_path):
    folder = _write(tmp_path)
    text = (folder / "test.csv").read_text(encoding="utf-8").splitlines()
    (folder / "test.csv").write_text("\n".join(f"{line},{line.split(',')[1]}" for line in text), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"test.csv: expected each of the columns .* once, received 'User' 2 times"):
        read_given_split(folder)


def _without(field):
    return DECLARED | {"fields": [each for each in DECLARED["fields"] if each["name"] != field]}


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        (_without("item id"), "field seen: shares 'item id': expected terms that share those of another field"),
        (_without("User"), "group 'User': expected the name of a categorical field"),
        (DECLARED | {"label": "price"}, "expected a name of its own for each"),
        (DECLARED | {"labels": "x"}, "labels: Extra inputs are not permitted"),
        (DECLARED | {"fields": [*DECLARED["fields"], {"name": "age", "type": "numeric"}]}, "received 'age' 0 times"),
    ],
)
def test_a_declaration_that_fits_nothing_is_refused(declared, told, tmp_path):
    with pytest.raises(DatasetError, match=told):
        read_given_split(_write(tmp_path, declared=declared))


def test_columns_that_nobody_declared_may_hold_anything(folder, tmp_path):
    whole = _write(tmp_path)
    lines = (whole / "train.csv").read_text(encoding="utf-8").splitlines()
    more = [f"{lines[0]},note", *(f"{line},{row or 'words'}" for row, line in enumerate(lines[1:], start=-1199))]
    assert more[-1].endswith("words"), "after a block of numbers"
    (whole / "train.csv").write_text("\ufeff" + "\n".join(more), encoding="utf-8")
    assert read_given_split(whole).transforms == read_given_split(folder).transforms


def test_two_files_of_one_split_are_refused(tmp_path):
    _write(tmp_path)
    with pytest.raises(DatasetError, match=r"expected train\.csv or train\.parquet, received both"):
        read_given_split(_write(tmp_path, "parquet"))


def test_terms_stand_by_their_frequency_and_the_missing_group_is_its_own(tmp_path):
    declared = {"label": "clicked", "group": "who", "fields": [{"name": "who", "type": "categorical"}]}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")
    table = pa.table({"clicked": [0, 1, 0, 1, 1, 0], "who": ["b", "c", "a" * 300, None, "c", "None"]})
    for split in ROWS:
        pq.write_table(table, tmp_path / f"{split}.parquet")
    given = read_given_split(tmp_path)
    assert given.transforms.vocabularies["who"] == ("c", "None", "a" * 300, "b")
    assert len(set(given[TRAIN].users.tolist())) == 5


def test_a_file_that_is_not_there_is_named(folder, tmp_path):
    whole = _write(tmp_path)
    (whole / "valid.csv").unlink()
    with pytest.raises(DatasetError, match=r"valid.csv: expected a CSV file with a header, or valid.parquet"):
        read_given_split(whole)
    with pytest.raises(DatasetError, match=r"nowhere/dataset.yaml: expected a YAML file"):
        read_given_split(tmp_path / "nowhere")


QUICK = Presets(
    common={"embedding_size": 4, "batch_size": 100, "learning_rate": 0.03, "epochs": 8},
    models={"lr": {"auc": 0.9, "seeds": 5}, "fm": {"l2": 1e-4}},
)


def test_crossing_models_beat_a_linear_one_where_only_pairs_tell(folder):
    found = benchmark(Protocol.GIVEN_SPLIT, folder, "", ["lr", "fm"], 1, QUICK)
    linear, pairs = found["rows"]
    assert (linear["model"], pairs["model"]) == ("lr", "fm")
    assert linear["auc"] < 0.65
    assert min(pairs["auc"], pairs["gauc"]) > 0.8
    assert all(row["seconds"] > 0 and row["log_loss"] > 0 for row in found["rows"])
    assert found["published"] == {"lr": {"auc": 0.9, "seeds": 5}, "fm": {}}


@pytest.mark.parametrize("name", ["din", "dien", "bst"])
def test_a_sequence_that_shares_the_items_terms_is_a_history(name, folder):
    given = read_given_split(folder)
    encoded = build_encoder(given.signature, given.transforms)
    model_class = RANKING_MODELS[name]
    scorer = model_class(model_class.config_class()).build(encoded, 1)
    dice = np.random.default_rng(4)
    for weight in scorer.trainable_weights:
        weight.assign(dice.normal(scale=0.5, size=weight.shape))
    columns = encoded.run(given[TEST].features, given.signature)
    seen = keras.Model(scorer.input, scorer.get_layer("deep_0").input)
    interest, without = (seen(each).numpy()[:, -8:] for each in (columns, columns | {"seen": columns["seen"] * 0}))
    some = (columns["seen"] != 0).any(axis=1)
    assert 0 < some.sum() < len(some)
    assert (np.abs(interest - without)[some].max(axis=1) > 1e-4).all()
    np.testing.assert_array_equal(interest[~some], without[~some])


def test_histories_are_learned_from_given_rows(folder):
    once = QUICK.model_copy(update={"common": {**QUICK.common, "epochs": 1}, "models": {"din": {}}})
    (row,) = benchmark(Protocol.GIVEN_SPLIT, folder, "", ["din"], 1, once)["rows"]
    assert 0.4 < row["auc"] <= 1
    with pytest.raises(BenchmarkError, match=r"received none of \['dsin, seed 1'\]") as failed:
        benchmark(Protocol.GIVEN_SPLIT, folder, "", ["dsin"], 1, once)
    assert "expected user_sequence_sessions" in failed.value.result["rows"][0]["error"]


def test_settings_have_the_names_of_the_configs():
    preset = preset_of("xdeepfm", Presets(common={"embedding_size": 10}, models={"xdeepfm": {"l2": 0.1, "cin": 64}}))
    assert (preset.config.embedding_size, preset.config.l2, preset.config.maps) == (10, 0.05, (64,))
    assert preset.config.unknown_rate == 0
    assert preset.config.fit.stop_by == "auc"
    assert preset.config.hidden == (400, 400, 400), "the benchmark's, where neither preset nor class has others"
    assert preset_of("autoint", None).config.hidden == ()
    two = preset_of("finalmlp", Presets(models={"finalmlp": {"hidden": [[400], [100]], "heads": 5}}))
    assert (two.config.hidden, two.config.second, two.config.heads) == ((400,), (100,), 5)
    assert preset_of("lr", QUICK).config.fit.batch_size == 100, "it has no vectors, which the others have in common"


PUBLISHED = {
    "lr": {"spread": 1e-4, "fit": {"epsilon": 1e-8, "patience": 2}},
    "afm": {"attention_size": 128, "attention_dropout": 0.1, "dropout": 0.1},
    "nfm": {"pooled_dropout": 0.0, "batch_norm": False, "fit": {"epochs": 200}},
    "pnn": {"batch_norm": False, "fit": {"patience": 3}},
    "wide_deep": {"crosses": (), "wide_learning_rate": 0.0, "batch_norm": True},
    "autoint": {"hidden": (400, 400, 400), "layers": 5, "head_size": 32, "layer_norm": True, "batch_norm": True},
    "dlrm": {"interaction": "vectors", "dropout": 0.4},
    "finalmlp": {"gate": (400,), "gates": (("user",), ("item",)), "gate_dropout": 0.0, "batch_norm": True},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_row_is_fitted_as_its_run_was(name):
    config = preset_of(name, Presets(models={name: {"auc": 0.9}})).config.model_dump()
    fit, asked = config["fit"], PUBLISHED[name]
    assert {key: value for key, value in (config | {"fit": {}}).items() if key in asked} == asked | (
        {"fit": {}} if "fit" in asked else {}
    )
    assert asked.get("fit", {}).items() <= fit.items()
    mine = preset_of(name, Presets(common={"spread": 0.5}, models={name: {"auc": 0.9, "patience": 7}})).config
    assert (mine.spread, mine.fit.patience) == (0.5, 7), "what a preset says, counts"
    assert preset_of(name, Presets(models={name: {}})).config.spread == 0.01, "nothing was published of it"


def test_a_common_setting_counts_before_an_untold_one():
    presets = Presets(common={"batch_norm": False, "dropout": 0.05}, models={"dcn": {"auc": 0.9}})
    assert (preset_of("dcn", presets).config.batch_norm, preset_of("dcn", presets).config.dropout) == (False, 0.05)


def test_a_field_is_the_users_where_its_name_says_so(tmp_path):
    fields = [{"name": name, "type": "categorical"} for name in ("User", "item", "user_age")]
    declared = {"label": "clicked", "fields": [*fields, {"name": "users", "type": "categorical", "of": "item"}]}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")
    table = pa.table({"clicked": [0, 1], **{field["name"]: ["a", "b"] for field in declared["fields"]}})
    for split in ROWS:
        pq.write_table(table, tmp_path / f"{split}.parquet")
    scopes = [each.scope for each in read_given_split(tmp_path).signature.inputs]
    assert scopes == [Scope.USER, Scope.ITEM, Scope.USER, Scope.ITEM]


def test_finalmlp_needs_no_field_of_the_user(folder):
    given = read_given_split(folder)
    items = tuple(ModelInput(each.column, Scope.ITEM) for each in given.signature.inputs)
    encoded = build_encoder(replace(given.signature, inputs=items), given.transforms)
    model_class = RANKING_MODELS["finalmlp"]
    scorer = model_class(model_class.config_class(batch_norm=True, gate_dropout=0.0)).build(encoded, 1)
    columns = encoded.run(given[TEST].features, given.signature)
    assert scorer(columns).shape == (ROWS[TEST], 1)
    assert unreached(scorer, columns) == []
    rates = {layer.name: layer.rate for layer in scorer.layers if isinstance(layer, keras.layers.Dropout)}
    norms = {layer.name for layer in scorer.layers if isinstance(layer, keras.layers.BatchNormalization)}
    assert rates["gate_0_0_dropout"] == 0 < rates["stream_0_0_dropout"]
    assert norms == {"stream_0_0_norm", "stream_0_1_norm", "stream_1_0_norm"}


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"depth": 3}, r"settings \['depth'\]: expected some of"), ({"hidden": [-1]}, "greater than or equal to 1")],
)
def test_settings_that_a_model_does_not_have_are_refused(settings, told):
    with pytest.raises(SpecError, match=rf"preset of dcn: .*{told}"):
        preset_of("dcn", Presets(models={"dcn": settings}))


def test_a_common_setting_that_no_model_has_is_refused():
    with pytest.raises(SpecError, match=r"preset of fm: settings \['embeding_size'\]"):
        preset_of("fm", Presets(common={"embeding_size": 4}, models={"fm": {}}))


def test_a_file_of_presets_names_models_that_there_are(tmp_path):
    (tmp_path / "presets.yaml").write_text("models: {deepfn: {l2: 0.1}}", encoding="utf-8")
    with pytest.raises(SpecError, match=r"presets.yaml: models \['deepfn'\]: expected some of \['lr'"):
        read_presets(tmp_path / "presets.yaml")


def test_lightgbm_has_settings_and_a_published_row():
    presets = Presets(common={"learning_rate": 1e-3}, models={"lightgbm": {"leaves": 7, "auc": 0.8}})
    model, preset = model_of("lightgbm", Protocol.GIVEN_SPLIT, presets)
    assert (model.config, preset.published) == (BoostedConfig(leaves=7), {"auc": 0.8})
    with pytest.raises(SpecError, match="preset of lightgbm: depth: Extra inputs are not permitted"):
        model_of("lightgbm", Protocol.GIVEN_SPLIT, Presets(models={"lightgbm": {"depth": 3}}))


def test_the_example_of_presets_is_one():
    presets = read_presets(Path(__file__).parents[3] / "models" / "benchmark" / "presets.yaml")
    assert all(preset_of(name, presets).config for name in presets.models)


def test_the_command_ends_with_one_object(folder, tmp_path):
    from models.__main__ import app

    preset = tmp_path / "preset.yaml"
    once = QUICK.model_copy(update={"common": {**QUICK.common, "epochs": 1}})
    preset.write_text(json.dumps(once.model_dump()), encoding="utf-8")
    given = ["benchmark", "--task", "ranking", "--protocol", "given-split", "--data", str(folder), "--models", "lr"]
    result = CliRunner().invoke(app, [*given, "--preset", str(preset), "--seeds", "2"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout.splitlines()[-1])["rows"]
    assert [(row["model"], row["seed"]) for row in rows] == [("lr", 1), ("lr", 2)]
    assert all(row.keys() == {"model", "seed", "auc", "gauc", "log_loss", "seconds"} for row in rows)
    meant = CliRunner().invoke(app, [*given, "--mapping", "ml.yaml"])
    assert (meant.exit_code, "expected none with" in meant.output + str(meant.stderr)) == (2, True)
    wrong = CliRunner().invoke(app, [*given[:-1], "lr,nobody"])
    assert wrong.exit_code != 0
    assert "model 'nobody': expected one of" in wrong.output + str(wrong.stderr)


def test_the_gates_of_finalmlp_read_the_columns_that_are_named_where_they_are_there(folder):
    given = read_given_split(folder)
    encoded = build_encoder(given.signature, given.transforms)
    users = [name for name in encoded.categorical if encoded.scopes[name] is Scope.USER]
    assert len(users) > 1
    model_class = RANKING_MODELS["finalmlp"]

    def gate_width(*named):
        config = model_class.config_class(gates=(named, ()), embedding_size=4)
        return model_class(config).build(encoded, 1).get_layer("gate_0_0").kernel.shape[0]

    everything = gate_width()
    assert gate_width(users[0]) == 4 < everything
    assert gate_width("another") == everything, "none of them is there"
