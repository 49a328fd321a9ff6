"""Peers of the ranking models: which jobs they get, what is kept, and what is told of them. No peer is run."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

import infra.bench.models_peers as peers
from feature_repo.contracts.places import Namespace
from infra.bench.errors import BenchError
from infra.bench.models_cells import Cell, Kept
from infra.bench.models_peers import Environment, Job, PeerBench, beside_peers, by_time, peer_settings, pinned
from infra.bench.models_peers_page import LEAST_LESS_PEER, peer_figures, peer_table
from infra.bench.peers.catalogue import AT_RANDOM, BY_TIME, DEEPCTR, FUXICTR, RECBOLE
from infra.bench.peers.rows import MISSING, UNKNOWN, read_rows
from models.benchmark.context import read_context
from models.benchmark.given_split import read_given_split, write_given_split
from models.benchmark.presets import Presets
from models.dataset import TEST, TRAIN, VALID
from models.ranking.catalogue import RANKING_MODELS
from tests.training_set_fixture import write_training_set

QUICK = Presets(common={"epochs": 1, "hidden": [4]}, models={"lr": {}}, search=({"l2": 1e-4}, {"l2": 1e-2}))
VERSIONS = {"recbole": "1", "deepctr-torch": "2", "fuxictr": "3", "torch": "4"}


@pytest.fixture(scope="module")
def training_set(tmp_path_factory):
    place = Namespace(tmp_path_factory.mktemp("state"), "toy")
    write_training_set(place, rows=1000)
    return place.training_sets / "toy"


@pytest.fixture
def context(training_set):
    return read_context(training_set)


class Made(Environment):
    """Does what a peer would: scores that know half of the labels."""

    def __init__(self):
        self.jobs = []

    def run(self, job):
        told = json.loads(job.read_text())
        self.jobs.append(told)
        random = np.random.default_rng(len(told["model"]))
        split = read_rows_of(told["folder"], TEST)
        out = told["out"]
        np.save(f"{out}-test.npy", (split + random.random(len(split))).astype(np.float32))
        record = {"option": len(told["settings"]) - 1, "searched": [0.5], "seconds": 1.0, "versions": VERSIONS}
        with open(f"{out}.json", "w") as file:  # noqa: PTH123
            json.dump(record, file)


def read_rows_of(folder, split):
    return pq.read_table(f"{folder}/{split}.parquet")["label"].to_numpy()


def bench_of(tmp_path, names, environment, folds=2):
    kept = Kept(tmp_path / "cells")

    def cell(which, make):
        return kept.finished(which, make)[0]

    return PeerBench(kept, cell, environment, names, folds)


def ours(bench, context, model):
    """Return records of our model whose scores know nothing."""
    found = []
    for number in range(1, bench.folds + 1):
        rows = int((context.tested_in == number).sum())
        bench.kept.keep_scores(Cell("random", number, model, 1, {}), np.random.default_rng(number).random(rows))
        found.append({"model": model, "number": number, "seed": 1, "figures": {"auc": 0.5}})
    return found


def test_every_peer_is_of_a_model_of_the_catalogue():
    for peer in (RECBOLE, DEEPCTR, FUXICTR):
        assert AT_RANDOM[peer].keys() <= RANKING_MODELS.keys()
        assert any(line.startswith(f"{peer}==") for line in pinned())
    for models in BY_TIME.values():
        assert all("history" in RANKING_MODELS[name].inputs for name in models)


def test_all_versions_are_pinned_and_nothing_is_for_a_gpu_that_need_not_be():
    assert all("==" in line for line in pinned())
    assert not {line.partition("==")[0] for line in pinned()} & {"triton", "ray", "nvidia-cusolver-cu12"}
    assert "torch==2.5.1" in pinned()


def test_settings_are_those_of_our_models_search(monkeypatch):
    monkeypatch.setattr("infra.bench.models_search.context_presets", lambda: QUICK)
    found = peer_settings("deepfm")
    assert [each["l2"] for each in found] == [5e-5, 5e-3], "a preset's l2 is twice a config's"
    assert {each["epochs"] for each in found} == {1}
    assert {tuple(each["hidden"]) for each in found} == {(4,)}


def test_peers_are_fitted_once_and_compared_over_all_folds(context, training_set, tmp_path, monkeypatch):
    monkeypatch.setattr("infra.bench.models_search.context_presets", lambda: QUICK)
    environment = Made()
    bench = bench_of(tmp_path, ["lr"], environment)
    records = ours(bench, context, "lr")
    lines = beside_peers(bench, context, training_set, records)
    assert [(job["peer"], len(job["settings"])) for job in environment.jobs] == [
        (RECBOLE, 2),
        (RECBOLE, 1),
        (FUXICTR, 2),
        (FUXICTR, 1),
    ], "the first fold searches for the other"
    assert environment.jobs[1]["settings"] == environment.jobs[0]["settings"][1:]
    assert {(line["peer"], line["folds"]) for line in lines} == {(RECBOLE, 2), (FUXICTR, 2)}
    line = lines[0]
    tested = [np.flatnonzero(context.tested_in == number) for number in (1, 2)]
    labels = context.rows["label"].to_numpy()[np.concatenate(tested)]
    scores = [np.load(bench.kept.folder / f"peer-{number}-recbole-lr-1.npy") for number in (1, 2)]
    assert line["auc"] == pytest.approx(roc_auc_score(labels, np.concatenate(scores)))
    less = line["less_peer"]
    assert less["value"] == pytest.approx(line["ours"] - line["auc"])
    assert less["low"] < less["value"] < less["high"] < 0
    assert line["versions"] == VERSIONS
    assert beside_peers(bench, context, training_set, records) == lines
    assert len(environment.jobs) == 4, "all was kept"
    shown = bench_of(tmp_path, ["lr"], None)
    assert beside_peers(shown, context, training_set, records) == lines, "what is there is shown without a run"
    assert not beside_peers(bench_of(tmp_path, ["fm"], None), context, training_set, records)
    one = beside_peers(bench_of(tmp_path, ["lr"], None), context, training_set, records[:1])
    assert {each["folds"] for each in one} == {1}, "folds that both have"


def test_a_model_of_a_history_has_the_same_rows_by_time(context, training_set, tmp_path, monkeypatch):
    monkeypatch.setattr("infra.bench.models_search.context_presets", lambda: QUICK)
    environment = Made()
    bench = bench_of(tmp_path, ["din"], environment)
    lines = beside_peers(bench, context, training_set, [])
    assert {(line["peer"], line["how"]) for line in lines} == {(DEEPCTR, "time"), (FUXICTR, "time")}
    assert all("less_peer" in line for line in lines)
    rows = read_rows(tmp_path / "peers" / environment.jobs[0]["folder"].rpartition("/")[2])
    history = next(field for field in rows.fields if field.shares)
    item = next(field for field in rows.fields if field.name == "item_id")
    assert (history.name, history.shares, history.size) == ("user_last_items", "item_id", item.size)
    whole = by_time(context, training_set)
    assert [len(whole.tables[split]) for split in (TRAIN, VALID, TEST)] == [700, 150, 150]


def test_a_peer_that_fails_is_told(context, training_set, tmp_path):
    bench = bench_of(tmp_path, ["lr"], Made())
    failing = PeerBench(bench.kept, lambda *_: {"number": 1, "error": "BenchError: no luck"}, Made(), ["lr"], 2)
    lines = beside_peers(failing, context, training_set, ours(bench, context, "lr"))
    assert {line["error"] for line in lines} == {"BenchError: no luck"}
    assert "recbole's lr has no figure: BenchError: no luck" in "\n".join(peer_table({"data": "toy", "peers": lines}))


@pytest.mark.parametrize("changed", ["REQUIREMENTS", "data", "settings", "code"])
def test_a_job_is_another_where_what_it_follows_from_changed(changed, tmp_path, monkeypatch):
    job = {"part": "peer", "number": 1, "peer": RECBOLE, "model": "lr", "settings": [{"l2": 1}], "data": "a"}
    before = Job(**job).cell.key
    assert before == Job(**job).cell.key
    if changed == "REQUIREMENTS":
        monkeypatch.setattr(peers, "pinned", lambda: ["recbole==9"])
    elif changed == "code":
        monkeypatch.setattr(peers, "runner_sha256", lambda _: "another")
    else:
        job[changed] = "b" if changed == "data" else [{"l2": 2}]
    assert Job(**job).cell.key != before


def test_an_environment_that_cannot_be_made_is_tried_once(tmp_path, monkeypatch):
    tried = []

    def no_uv(*_):
        tried.append(1)
        msg = "no network"
        raise OSError(msg)

    monkeypatch.setattr(peers, "provide_uv", no_uv)
    environment = Environment(tmp_path / "peers", tmp_path, {}, lambda _: None)
    for _ in range(2):
        with pytest.raises(BenchError, match="cannot be made: no network"):
            environment.run(tmp_path / "job.json")
    assert len(tried) == 1


def test_an_environment_is_kept_until_the_requirements_change(tmp_path, monkeypatch):
    commands = []

    class Done:
        returncode, stderr = 0, ""

    def run(command, **_):
        commands.append(command[1:3])
        if command[1] == "venv":
            (tmp_path / "peers" / "bin").mkdir(parents=True, exist_ok=True)
            (tmp_path / "peers" / "bin" / "python").touch()
        return Done()

    monkeypatch.setattr(peers, "provide_uv", lambda *_: "uv")
    monkeypatch.setattr(peers.subprocess, "run", run)
    requirements = tmp_path / "requirements.txt"
    monkeypatch.setattr(peers, "REQUIREMENTS", requirements)
    for text, count in (("torch==1\n", 3), ("torch==1\n", 1), ("torch==2\n", 3)):
        requirements.write_text(text)
        commands.clear()
        Environment(tmp_path / "peers", tmp_path, {}, lambda _: None).run(tmp_path / "job.json")
        assert len(commands) == count
    assert commands[:2] == [["venv", "--quiet"], ["pip", "sync"]]


LINE = {"peer": RECBOLE, "model": "lr", "how": "random", "folds": 2, "versions": VERSIONS, "auc": 0.71, "ours": 0.72}
GOOD = LINE | {"less_peer": {"value": 0.01, "low": -0.001, "high": 0.02}}
BAD = LINE | {"model": "fm", "how": "time", "less_peer": {"value": -0.01, "low": -0.02, "high": 0.0}}


def test_each_pair_has_a_hard_target():
    figures = {figure.name: figure for figure in peer_figures({"data": "toy", "peers": [GOOD, BAD]})}
    low = figures["toy: AUC of lr less recbole 1's, at random, 2 of 10 folds, the interval's lower end"]
    assert (low.value, low.target, low.hard, low.better) == (-0.001, LEAST_LESS_PEER, True, "higher")
    assert figures["toy: AUC of recbole 1's fm by time"].value == 0.71
    assert not peer_figures({"data": "toy"})


def test_the_table_has_both_and_says_what_holds():
    text = "\n".join(peer_table({"data": "toy", "peers": [BAD, GOOD]}))
    assert "1 of 2 differences hold." in text
    good = "| lr | recbole 1 | at random, 2 of 10 folds | 0.7200 | 0.7100 | +0.0100 (-0.0010 to +0.0200) | yes |"
    assert good in text
    assert "| no |" in text
    assert text.index("| lr |") < text.index("| fm |")
    assert not peer_table({"data": "toy"})


def test_a_split_that_was_written_is_read_by_ours_and_by_the_peers(context, tmp_path):
    tables = context.tables(3)
    write_given_split(context.declared, tables, tmp_path)
    own, rows = read_given_split(tmp_path), read_rows(tmp_path)
    for split in (TRAIN, VALID, TEST):
        np.testing.assert_array_equal(own[split].labels, rows.labels[split])
        np.testing.assert_array_equal(own[split].labels, context.fold(3)[split].labels)
    for field in rows.fields:
        if field.kind == "categorical":
            codes = rows.columns[TRAIN][field.name]
            assert codes.max() == field.size - 1
            assert UNKNOWN not in codes
    genres = next(field for field in rows.fields if field.kind == "sequence")
    first = [term for term in tables[TRAIN][genres.name][0].as_py() if term]
    assert (rows.columns[TRAIN][genres.name][0] != MISSING).sum() == len(first)
