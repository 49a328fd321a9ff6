"""The ranker that benchmarks register: its verdict is on the run that bears it, as a rollout asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from feature_repo.contracts.manifests import Decision, Verdict
from feature_repo.contracts.publishing import read_json, write_json
from feature_repo.contracts.schemas import MOVIELENS
from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, SIGNATURE_ARTIFACT, ranking
from infra.bench.ranker import Ranker
from tests.releases import ranker_part, release_of
from tests.serving_world import training_set

if TYPE_CHECKING:
    from pathlib import Path


def test_a_copy_has_the_verdict_on_its_own_run(tmp_path: Path) -> None:
    verdict = Verdict("made-up", "ranking", "1", "the demo's run", Decision.PROMOTE, "it is better.", "", [])
    signature = ranking(MOVIELENS, ("item_event_count",)).to_json()
    part = ranker_part(run_id=verdict.run_id, signature=signature)
    release = release_of("made-up", part, why=verdict.reason)
    files = {name: tmp_path / f"{name}.json" for name in ("golden", "training_set", "verdict")}
    for file in files.values():
        file.write_text("{}", encoding="utf-8")
    verdict.write(files["verdict"])
    Ranker(release, tmp_path / "model", **files).copy_run(tmp_path / "copy", "another run")
    copied = Verdict.read(tmp_path / "copy" / "gates" / "verdict.json")
    assert (copied.run_id, copied.decision, copied.reason) == ("another run", verdict.decision, verdict.reason)
    assert read_json(tmp_path / "copy" / SIGNATURE_ARTIFACT) == signature


def test_pair_inputs_are_stretched_to_the_candidates_as_the_items_are(tmp_path: Path) -> None:
    signature = ranking(MOVIELENS, ("item_event_count", "user_event_count", "pair_item2vec_score"))
    release = release_of("made-up", ranker_part(signature=signature.to_json()))
    inputs = {"item_id": ["1", "2"], "request_time": [893_289_600], "user_event_count": [3]}
    inputs |= {"item_event_count": [5, 6], "pair_item2vec_score": [0.5, -1e9]}
    write_json(tmp_path / "golden.json", {"requests": [{"signature_name": ONE_USER_SIGNATURE, "inputs": inputs}]})
    training_set("made-up").write(tmp_path / "training_set.json")
    files = {name: tmp_path / f"{name}.json" for name in ("golden", "training_set", "verdict")}
    sent = Ranker(release, tmp_path / "model", **files).inputs(ONE_USER_SIGNATURE, 5)
    assert {name: len(values) for name, values in sent.items()} == {
        name: 1 if name in {"request_time", "user_event_count"} else 5 for name in inputs
    }
    assert sent["pair_item2vec_score"].tolist() == [0.5, -1e9, 0.5, -1e9, 0.5]
    assert sent["pair_item2vec_score"].dtype == np.float32
