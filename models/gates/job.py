"""The job `gate`: evaluation and serving check → verdict, report, registered version."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.intervals import model_name
from feature_repo.contracts.list_policy import POLICY_ARTIFACTS, ListPolicy
from feature_repo.contracts.manifests import TrainingSet, Verdict
from feature_repo.contracts.objectives import Objective
from feature_repo.contracts.places import MANIFEST, Namespace, Serving
from feature_repo.contracts.publishing import read_json, tree_sha256
from feature_repo.contracts.served_models import CHAMPION_RUN_TAG, CHAMPION_VERSION_TAG, served_versions
from feature_repo.contracts.signatures import RANKING_MODEL, read_signature
from models import registry, tracking
from models.candidate_folder import CandidateFolder
from models.dataset import find_training_set
from models.errors import CandidateError
from models.evaluation.lists import list_figures
from models.evaluation.slices import SLICE_CODES, Sliced
from models.gates.decide import Evidence, Outcomes, TestScores, decide
from models.gates.margins import Margins, TestSplit, read_margins
from models.gates.report import render, render_card

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from models.settings import Settings

log = logging.getLogger(__name__)
_EVALUATED = frozenset({"objectives", "slices", "input_drift", "importance", "embeddings", "export"})
"""What an evaluation of an earlier release of this code lacks."""
_CARD = "card/model_card.html"
_PLOTS = {"ROC": "comparison_roc.svg", "Calibration": "comparison_calibration.svg"}


def gate(
    settings: Settings,
    namespace_name: str,
    training_set_id: str,
    run_key: str,
    margins: Margins | None = None,
) -> dict[str, object]:
    """Decide on the candidate, register it, log the report, and write `verdict.json` last."""
    margins = margins or read_margins(RANKING_MODEL, settings.gate_margins)
    namespace = Namespace(settings.state, namespace_name)
    folder = CandidateFolder(namespace, run_key)
    choice = folder.chosen(training_set_id)
    learned_from = choice["winner_training_set_id"]
    run = folder.run_of(choice["spec"]["name"], learned_from)
    saved_model_sha256 = _check_saved_model(folder, run)
    evaluation = _read(folder.evaluation, f"python -m models evaluate --run-key {run_key}")
    if absent := sorted(_EVALUATED - evaluation.keys()):
        msg = f"{folder.evaluation}: expected {absent}, received none; evaluate the run key again"
        raise CandidateError(msg)
    check = _read(folder.serving_check, "python -m serving.model_server check")
    _check_serving_record(folder.serving_check, check)
    policy = ListPolicy.from_json(choice.get("policy", {}), str(folder.choice))
    training_set = TrainingSet.read(find_training_set(namespace, learned_from) / MANIFEST)
    outcomes = decide(
        _read_scores(folder.scores, evaluation["objectives"], evaluation["slices"]),
        _evidence(evaluation, check, run, choice),
        margins,
        settings.seed,
        settings.ece_bins,
    )
    name = model_name(namespace_name, RANKING_MODEL)
    client = tracking.connect(settings.mlflow_uri)
    with tracking.reaching(settings.mlflow_uri):
        tracking.check_run(client, run["run_id"], run_key)
        # In this order: cut off in between, the rollout finds a champion that is out of date, or no checksum yet.
        tags = {
            registry.DECISION: outcomes.decision.value,
            registry.REASON: outcomes.reason,
            CHAMPION_VERSION_TAG: evaluation["champion"]["version"],
            CHAMPION_RUN_TAG: evaluation["champion"]["run_id"],
            tracking.SAVED_MODEL_SHA256: saved_model_sha256,
            tracking.TRAINING_SET: training_set_id,
            tracking.RUN_KEY: run_key,
            tracking.MODEL: run["model"],
        }
        served = served_versions(Serving(settings.state), namespace_name, RANKING_MODEL)
        version = registry.register(client, name, run["model_id"], run["run_id"], tags=tags, served=served)
        verdict = Verdict(
            namespace=namespace_name,
            model=RANKING_MODEL,
            version=version,
            run_id=run["run_id"],
            decision=outcomes.decision,
            reason=outcomes.reason,
            champion_version=evaluation["champion"]["version"],
            gates=[each.as_record() for each in outcomes.gates],
        )
        report = _report(
            name,
            version,
            outcomes,
            evaluation=evaluation,
            run=run,
            training_set=training_set,
            margins=margins,
            check=check,
            policy=policy,
        )
        drawn = {title: folder.plots / file for title, file in _PLOTS.items()}
        curves = {title: path.read_text(encoding="utf-8") for title, path in drawn.items() if path.exists()}
        importance = (folder.plots / "importance.svg").read_text(encoding="utf-8")
        for part, content in policy.record().items():
            text = json.dumps(content, indent=2, sort_keys=True)
            client.log_text(run["run_id"], text, f"{POLICY_ARTIFACTS}/{part}.json")
        client.log_text(run["run_id"], json.dumps(report, indent=2), "gates/report.json")
        client.log_text(run["run_id"], render(report, curves, importance), "gates/report.html")
        signature = read_signature(folder.saved_model(run["model"])).to_json()
        client.log_text(run["run_id"], render_card(report, run, signature), _CARD)
        client.log_text(run["run_id"], json.dumps(_verdict_record(verdict), indent=2), "gates/verdict.json")
        tracking.set_tags(
            client, run["run_id"], {registry.DECISION: outcomes.decision.value, registry.REASON: outcomes.reason[:4900]}
        )
        card = tracking.artifact_link(client, run["run_id"], _CARD)
        registry.describe(client, name, version, f"{outcomes.reason}\n\n[Model card]({card})")
    verdict.write(folder.verdict)
    log.info("%s: %s", outcomes.decision, outcomes.reason)
    return {
        "decision": outcomes.decision.value,
        "reason": outcomes.reason,
        "version": version,
        "run_id": run["run_id"],
        "champion_version": verdict.champion_version,
    }


def _verdict_record(verdict: Verdict) -> dict[str, object]:
    return {name: getattr(verdict, name) for name in verdict.__dataclass_fields__}


def _check_saved_model(folder: CandidateFolder, run: Mapping[str, Any]) -> str:
    """Return the SavedModel's checksum; CandidateError if it is no longer what training wrote."""
    directory = folder.saved_model(run["model"])
    received = tree_sha256(directory)
    if received != run["saved_model_sha256"]:
        msg = (
            f"{directory}: expected SHA-256 {run['saved_model_sha256']}, received {received}; it was changed after "
            "training: train with another run key"
        )
        raise CandidateError(msg)
    return received


def _read(path: Path, command: str) -> dict[str, Any]:
    if not path.is_file():
        msg = f"{path}: expected what `{command}` writes, received no file; run it first"
        raise CandidateError(msg)
    return read_json(path)


def _check_serving_record(path: Path, check: Mapping[str, Any]) -> None:
    expected = {"requests", "rows", "max_abs_difference", "grpc", "rest"}
    latencies = {"p50_ms", "p99_ms"}
    absent = sorted(expected - check.keys())
    if absent or not all(latencies <= check[protocol].keys() for protocol in ("grpc", "rest")):
        msg = f"{path}: expected fields {sorted(expected)}, grpc and rest with {sorted(latencies)}, received {check}"
        raise CandidateError(msg)


def _read_scores(
    path: Path, objectives: Mapping[str, Mapping[str, Any]], slices: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[TestSplit, TestScores]:
    if not path.is_file():
        msg = f"{path}: expected what `python -m models evaluate` writes, received no file; run it first"
        raise CandidateError(msg)
    with np.load(path) as stored:
        labels, values, users = stored["labels"], stored["values"], stored["users"]
        learned = {row: Objective.from_json(each, f"{path}, {row}") for row, each in objectives.items()}
        sliced = {
            kind: Sliced(tuple(each["slice"] for each in found), stored[f"{SLICE_CODES}{kind}"])
            for kind, found in slices.items()
        }
        return {
            part: TestScores(
                labels,
                values,
                users,
                {name.removeprefix(f"{part}."): stored[name] for name in stored.files if name.startswith(f"{part}.")},
                learned,
                sliced,
            )
            for part in TestSplit
        }


def _evidence(
    evaluation: Mapping[str, Any], check: Mapping[str, Any], run: Mapping[str, Any], choice: Mapping[str, Any]
) -> Evidence:
    champion = evaluation["champion"]
    return Evidence(
        model=run["model"],
        may_be_champion=choice["spec"]["may_be_champion"],
        champion_version=champion["version"],
        incomparable=champion["incomparable"],
        retired_views=list(champion["retired_views"]),
        unregistered=bool(champion.get("unregistered")),
        same_weights=bool(champion["weights_sha256"]) and champion["weights_sha256"] == run["weights_sha256"],
        signature_differences=list(evaluation["signature_differences"]),
        serving_check=check,
        lists=list_figures(evaluation["lists"]),
        input_drift=evaluation["input_drift"],
        export=evaluation["export"],
        left_out=evaluation["left_out"],
        champion_named=champion.get("named", ""),
    )


def _report(
    name: str,
    version: str,
    outcomes: Outcomes,
    *,
    evaluation: Mapping[str, Any],
    run: Mapping[str, Any],
    training_set: TrainingSet,
    margins: Margins,
    check: Mapping[str, Any],
    policy: ListPolicy,
) -> dict[str, Any]:
    lineage = ("training_set_id", "kind", "cutoff", "train_end", "valid_end", "label_min_value", "views", "rows")
    return {
        "model": name,
        "spec": run["model"],
        "choice": evaluation["choice"],
        "left_out": evaluation["left_out"],
        "version": version,
        "decision": outcomes.decision.value,
        "reason": outcomes.reason,
        "gates": [each.as_record() for each in outcomes.gates],
        "calibration": [each.as_record() for each in outcomes.calibration],
        **{
            key: evaluation[key]
            for key in (
                "metrics",
                "slices",
                "input_drift",
                "importance",
                "embeddings",
                "export",
                "rows",
                "users",
                "positives",
                "champion",
            )
        },
        **{key: run[key] for key in ("run_id", "saved_model_sha256", "weights_sha256")},
        "training_set": {field: getattr(training_set, field) for field in lineage},
        "settings": margins.model_dump(mode="json"),
        "serving_check": dict(check),
        "lists": evaluation["lists"]["sentence"],
        "policy": policy.record(),
    }
