"""The benchmark of models: which cells are kept, what is told of figures, and that the page keeps what others wrote."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from feature_repo.contracts.manifests import TrainingKind, TrainingSet
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import read_json
from infra.bench.lists_page import _parts
from infra.bench.models import Bench, _measure, _random
from infra.bench.models_cells import Cell, Kept, code_sha256
from infra.bench.models_lists import Offered, list_specs
from infra.bench.models_metrics import metrics_figures
from infra.bench.models_page import record_figures, write_section
from infra.bench.models_summary import difference
from infra.bench.results import write_results
from models.benchmark.context import read_context
from models.benchmark.job import model_of
from models.benchmark.preparation import Prepared
from models.benchmark.presets import Presets
from models.benchmark.protocols import Protocol
from models.errors import DatasetError
from models.ranking.listing import COSTS, measured_costs
from models.specs.spec import read_specs
from tests.training_set_fixture import write_training_set

QUICK = Presets(common={"epochs": 1}, models={"lr": {}}, search=({"l2": 1e-4}, {"l2": 1e-2}))


def cell(**changes):
    return Cell(**{"part": "time", "number": 1, "model": "fm", "seed": 1, "basis": {"data": "a"}, **changes})


def test_a_finished_cell_is_made_once(tmp_path):
    kept, made = Kept(tmp_path), []

    def make():
        made.append(1)
        return {"figures": {"auc": 0.7}}

    first, was_there = kept.finished(cell(), make)
    assert not was_there
    again, was_there = kept.finished(cell(), make)
    assert was_there
    assert first == again
    assert len(made) == 1


@pytest.mark.parametrize("changes", [{"basis": {"data": "b"}}, {"basis": {"data": "a", "code": "c"}}])
def test_a_cell_is_made_again_where_its_basis_changed(changes, tmp_path):
    kept = Kept(tmp_path)
    kept.finished(cell(), lambda: {"figures": 1})
    record, was_there = kept.finished(cell(**changes), lambda: {"figures": 2})
    assert (record["figures"], was_there) == (2, False)


def test_a_half_written_cell_is_made_again(tmp_path):
    (tmp_path / f"{cell().name}.json").write_text('{"key": "', encoding="utf-8")
    assert Kept(tmp_path).read(cell()) is None


def test_a_cell_that_fails_leaves_nothing(tmp_path):
    def fail():
        msg = "no rows"
        raise DatasetError(msg)

    with pytest.raises(DatasetError):
        Kept(tmp_path).finished(cell(), fail)
    assert not list(tmp_path.iterdir())


def test_code_is_what_a_model_imports_and_nothing_of_other_models():
    fm, deep = (code_sha256(f"models.ranking.{name}") for name in ("fm", "deepfm"))
    assert fm != deep
    assert fm == code_sha256("models.ranking.fm")
    assert code_sha256("models.ranking.fm", "models.ranking.deepfm") not in {fm, deep}


def test_a_change_of_what_is_imported_changes_the_code(tmp_path, monkeypatch):
    import infra.bench.models_cells as cells

    for name, text in {"a": "from models import b\n", "b": "X = 1\n", "c": "Y = 1\n"}.items():
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(cells, "REPOSITORY", tmp_path)
    told = []
    for changed in ("", "c", "b"):
        if changed:
            (tmp_path / "models" / f"{changed}.py").write_text("X = 2\n", encoding="utf-8")
        told.append(code_sha256.__wrapped__("models.a"))
    assert told[0] == told[1] != told[2]


def test_a_difference_has_an_interval_that_holds_it():
    random = np.random.default_rng(1)
    users = np.repeat(np.arange(60), 20)
    labels = random.integers(0, 2, len(users))
    good, bad = labels + random.normal(0, 1, len(users)), random.normal(0, 1, len(users))
    found = difference(labels, users, good, bad)
    assert 0 < found["low"] < found["value"] < found["high"] < 1
    same = difference(labels, users, good, good)
    assert (same["low"], same["value"], same["high"]) == (0, 0, 0)


def line(model, at_random=None, by_time=None, ranker=None):
    return {"model": model, "random": at_random, "time": by_time, "ranker": ranker}


def as_ranker(*origins):
    return {"ndcg_at_10": origins[0], "spread": None, "origins": list(origins), "error": ""}


def by_time(auc, ndcg=None, *, costs=False, origins=None):
    measured = dict(zip(COSTS, (1.5, 2e6, 30.0), strict=True)) if costs else {}
    figures = {"auc": auc, "gauc": auc, "log_loss": 0.5, "spread": None, "costs": measured, "ndcg_at_10": ndcg}
    why = "" if ndcg else "nobody was asked"
    return figures | {
        "origins": origins or [auc],
        "lists_by_origin": [ndcg] * len(origins or [auc]),
        "lists_error": why,
    }


SUMMARY = {
    "data": "toy",
    "rows": 1000,
    "folds": 1,
    "lists": {"users": 9, "best_simple": {"name": "EASE", "ndcg_at_10": 0.2}, "unranked": 0.1},
    "models": [
        line(
            "fm",
            {"auc": 0.8, "folds": 1, "less_lightgbm": {"value": 0.1, "low": 0.05, "high": 0.2}},
            by_time(0.7, 0.3),
            as_ranker(0.25, 0.35),
        ),
        line("lr", {"auc": 0.7, "folds": 1}, by_time(0.8, 0.1, costs=True, origins=[0.8, 0.6]), as_ranker(0.15)),
        line("lists", ranker=as_ranker(0.4)),
        line("gbdt_lr", ranker={"ndcg_at_10": None, "spread": None, "origins": [None], "error": "no trees"}),
        line("din", None, {"error": "BuildError: no history"}),
        line("means", None, by_time(0.75)),
        line("lightgbm", {"auc": 0.7, "folds": 1}, by_time(0.6)),
    ],
}


def test_the_record_has_costs_where_the_catalogue_looks_for_them(tmp_path):
    path = write_results("models", record_figures([SUMMARY]), tmp_path)
    assert measured_costs(path) == {"lr": dict(zip(COSTS, (1.5, 2e6, 30.0), strict=True))}
    figures = {each["name"]: each for each in json.loads(path.read_text())["figures"]}
    target = figures["toy: AUC of the best of ours less LightGBM's, at random, the interval's lower end"]
    assert (target["value"], target["target"], target["hard"]) == (0.05, -0.002, True)
    assert figures["toy: NDCG@10 of fm as ranker"]["value"] == 0.3
    assert figures["toy: NDCG@10 of fm as ranker that learned from lists"]["value"] == 0.25


def test_the_section_says_who_loses_and_has_both_orders(tmp_path):
    page = tmp_path / "quality.md"
    page.write_text("# Quality\n\nwords\n\n## another\n\nmore words\n", encoding="utf-8")
    write_section([SUMMARY], page)
    text = page.read_text(encoding="utf-8")
    assert "1 of 2 models lose to means by time: fm." in text
    assert "No model loses to lightgbm by time." in text
    assert "By AUC lr is first, by lists lists (9 users)" in text
    assert "1 of 2 models lose to the best simple list as rankers that learned from rows: lr." in text
    assert "1 of 3 models lose to the best simple list as rankers that learned from lists: lr." in text
    assert "gbdt_lr has no figures as ranker that learned from lists: no trees" in text
    assert "So few users" in text
    assert "means has no lists: nobody was asked" in text
    assert "din has no figures by time: BuildError: no history" in text
    rows = {
        row.split(" | ")[0].removeprefix("| "): row.split(" | ") for row in text.splitlines() if row.count(" | ") == 10
    }
    assert (tmp_path / "images" / "models-toy.svg").is_file()
    assert "(images/models-toy.svg)" in text
    assert (rows["fm"][4], *rows["fm"][5:8]) == ("2", "0.3000", "0.2500", "2"), "places by AUC and by lists"
    assert rows["spec `lists`"][6:8] == ["0.4000", "1"]
    assert "| fm | 0.2500 | 0.3500 |" in text
    assert "| lr | 0.8000 | 0.1000 | 0.6000 | 0.1000 |" in text
    write_section([SUMMARY], page)
    assert page.read_text(encoding="utf-8") == text, "written twice, it stands there once"
    write_section([], page)
    assert "more words" in page.read_text(encoding="utf-8")
    assert "fm" not in page.read_text(encoding="utf-8")


def test_the_page_of_lists_keeps_the_section_whole(tmp_path):
    page = tmp_path / "quality.md"
    write_section([SUMMARY], page)
    verdicts, sections = _parts("# Quality\n\n" + page.read_text(encoding="utf-8"))
    assert not verdicts
    assert sections["Ranking models"].strip() == page.read_text(encoding="utf-8").strip()


@pytest.fixture(scope="module")
def training_set(tmp_path_factory):
    place = Namespace(tmp_path_factory.mktemp("state"), "toy")
    write_training_set(place, rows=1000)
    return place.training_sets / "toy"


def test_a_data_set_is_measured_and_kept(training_set, tmp_path, monkeypatch):
    """All but the lists, which need the data plane: fits, exports, costs, origins, the summary; then nothing again."""
    earlier = Namespace(tmp_path, "toy")
    write_training_set(earlier, "earlier", rows=600, seed=8)
    asked_for = []

    def training_set_at(_, cutoff=""):
        asked_for.append(cutoff)
        return earlier.training_sets / "earlier" if cutoff else training_set

    monkeypatch.setattr(Prepared, "training_set", training_set_at)
    monkeypatch.setattr("infra.bench.models.offer", lambda *_: Offered("none", "", ""))
    monkeypatch.setattr("infra.bench.models._lists", lambda *_: {})
    monkeypatch.setattr("infra.bench.models._ORIGINS", 2)
    monkeypatch.setattr("infra.bench.models_search.context_presets", lambda: QUICK)
    monkeypatch.setattr("infra.bench.models.model_of", lambda name, *_: model_of(name, Protocol.TIME, QUICK))
    said = []
    place = Namespace(training_set.parents[3], "toy")
    cells = Kept(tmp_path / "bench" / "cells")
    bench = Bench(cells, Prepared(place, "1998-04-23", {}), ["lr", "lightgbm"], 2, 1, said.append, [])
    _measure(bench, full=True)
    found = read_json(tmp_path / "bench" / "summary.json")
    assert not bench.failed
    assert len(said) == 9, "what is coming, two folds and two origins, of two models"
    until = TrainingSet.read(training_set / "manifest.json").valid_end
    assert asked_for == ["", until[:10]], "the next rows to be tested come before those that were"
    lines = {each["model"]: each for each in found["models"]}
    assert lines.keys() == {"popularity", "means", "lr", "lightgbm"}
    at_random, by_time = lines["lr"]["random"], lines["lr"]["time"]
    assert at_random["folds"] == 2
    assert at_random["less_lightgbm"]["low"] < at_random["less_lightgbm"]["high"]
    assert at_random["auc"] == pytest.approx(pooled_auc(cells, read_context(training_set), "lr", 2))
    assert len(by_time["origins"]) == 2
    assert by_time["origins"][0] == by_time["auc"]
    assert by_time["costs"].keys() == set(COSTS)
    saved_model = cells.folder / "time-1-lr-1-saved-model"
    size = sum(path.stat().st_size for path in saved_model.rglob("*") if path.is_file())
    assert by_time["costs"]["bytes"] == size
    assert all(value > 0 for value in by_time["costs"].values())
    _measure(bench, full=True)
    assert read_json(tmp_path / "bench" / "summary.json") == found
    assert len(said) == 10, "every cell was kept"


def pooled_auc(cells, context, model, folds):
    """Return scikit-learn's AUC over the test rows of the first folds."""
    labels = [
        context.rows["label"].to_numpy()[context.tested_in == number].astype(int) for number in range(1, folds + 1)
    ]
    scores = [np.load(cells.folder / f"random-{number}-{model}-1.npy") for number in range(1, folds + 1)]
    return roc_auc_score(np.concatenate(labels), np.concatenate(scores))


def test_a_model_that_context_does_not_suit_says_why_and_a_fault_is_tried_again(training_set, tmp_path, monkeypatch):
    place = Namespace(training_set.parents[3], "toy")
    bench = Bench(Kept(tmp_path), Prepared(place, "1998-04-23", {}), [], 1, 1, lambda _: None, [])
    (unsuited,) = _random(bench, read_context(training_set), "gbdt_lr")
    assert "expected columns of numbers" in unsuited["error"]
    assert not bench.failed

    def fault(*_):
        msg = "out of luck"
        raise ValueError(msg)

    monkeypatch.setattr("infra.bench.models_search.measure", fault)
    (failed,) = _random(bench, read_context(training_set), "lr")
    assert "out of luck" in failed["error"]
    assert bench.failed == ["random-1-lr-1: ValueError: out of luck"]
    assert not (tmp_path / "random-1-lr-1.json").exists()


def test_as_rankers_classes_have_the_features_of_the_shipped_spec_and_a_history_where_they_read_one():
    specs = list_specs(["fm", "din", "mlp", "lightgbm"])
    shipped = {spec.name: spec for spec in read_specs("ranking").specs if spec.rows is TrainingKind.LISTS}
    assert specs.keys() == {"fm", "din", "mlp", *shipped}
    assert specs["lists"] == shipped["lists"]
    reference = shipped["lists"]
    assert specs["fm"].features == reference.features
    assert specs["din"].features == (*reference.features, "user_sequence")
    assert {spec.objective for spec in specs.values()} == {reference.objective}
    assert specs["fm"].model().config.fit == specs["mlp"].model().config.fit == reference.model().config.fit


def test_a_million_predictions_are_measured_whole_and_by_slice(monkeypatch):
    monkeypatch.setattr("infra.bench.models_metrics.ROWS", 2000)
    monkeypatch.setattr("infra.bench.models_metrics._USERS", 100)
    whole, by_slice = metrics_figures()
    assert (whole.name, whole.target, whole.hard) == ("seconds of all metrics over 2,000 predictions", 2.0, True)
    assert "2 kinds of slices" in by_slice.name
    assert min(whole.value, by_slice.value) > 0
