"""The ranker that benchmarks register: its verdict is on the run that bears it, as a rollout asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import Decision, Verdict
from infra.bench.ranker import Ranker
from tests.releases import ranker_part, release_of

if TYPE_CHECKING:
    from pathlib import Path


def test_a_copy_has_the_verdict_on_its_own_run(tmp_path: Path) -> None:
    verdict = Verdict("made-up", "ranking", "1", "the demo's run", Decision.PROMOTE, "it is better.", "", [])
    release = release_of("made-up", ranker_part(run_id=verdict.run_id), why=verdict.reason)
    files = {name: tmp_path / f"{name}.json" for name in ("golden", "training_set", "verdict")}
    for file in files.values():
        file.write_text("{}", encoding="utf-8")
    verdict.write(files["verdict"])
    Ranker(release, tmp_path / "model", **files).copy_run(tmp_path / "copy", "another run")
    copied = Verdict.read(tmp_path / "copy" / "gates" / "verdict.json")
    assert (copied.run_id, copied.decision, copied.reason) == ("another run", verdict.decision, verdict.reason)
