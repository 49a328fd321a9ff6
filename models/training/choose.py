"""The job `choose`: which of the trained specs is evaluated, by validation alone; no test row was looked at yet.

The lists that users would be shown decide, as the serving plane measured them at the validation origin; where none
could be measured, or rows are to decide, the figures of the validation rows.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.list_policy import DECLARED, QUOTAS, RERANKING, ListPolicy
from feature_repo.contracts.objectives import Metric
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import read_json, write_json
from models import tracking
from models.candidate_folder import CandidateFolder, check_same_spec, training_set_of
from models.errors import CandidateError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from models.settings import Settings
    from models.specs.spec import Specs

log = logging.getLogger(__name__)
VALIDATION_LISTS = f"validation_lists_{Metric.NDCG.value}"
"""The metric of a spec's run."""
_PARTS = ("namespace", "lists", "undefined")
_COMMAND = "python -m serving.lists compare"


@dataclass(frozen=True, slots=True)
class Deciding:
    """What decides, and of whom."""

    metric: Metric
    figures: Mapping[str, float | None]
    """Spec that competes → figure; None where it is undefined."""
    why: str = ""
    """Why rows decide, where lists were to; else empty."""

    @property
    def of(self) -> str:
        """What the figures are of, for people."""
        return "lists at the validation origin" if self.metric is Metric.NDCG else "validation rows"


def choose(
    settings: Settings,
    namespace_name: str,
    training_set_id: str,
    run_key: str,
    trained: Specs,
    *,
    lists_id: str = "",
    validation_lists: Path | None = None,
) -> dict[str, object]:
    """Write `choice.json` and mark the runs; return the winner, where its SavedModel lies, and all figures.

    Of equal figures the first spec's counts. A spec that learns from lists, of which there are none, is left out.

    Args:
        settings: The model plane's.
        namespace_name: The data set's.
        training_set_id: The training set of kind RANKING, which names the run.
        run_key: Names the training run.
        trained: The specs, and the metrics that decide.
        lists_id: The training set of kind LISTS; empty where there is none.
        validation_lists: What the serving plane measured at the validation origin; None lets rows decide.

    Raises:
        CandidateError: A spec was not trained, or trained otherwise; the lists are of other models; or none that
            competes has a figure.
    """
    folder = CandidateFolder(Namespace(settings.state, namespace_name), run_key)
    sets = {spec.name: training_set_of(spec, training_set_id, lists_id) for spec in trained.specs}
    specs = [spec for spec in trained.specs if sets[spec.name]]
    runs = {spec.name: folder.run_of(spec.name, sets[spec.name]) for spec in specs}
    for spec in specs:
        check_same_spec(run_key, runs[spec.name], spec.record())
    measured = _measured(validation_lists, namespace_name, runs) if validation_lists else None
    deciding = _deciding(trained, runs, measured)
    winner = winner_of(deciding)
    shown = _shown(measured)
    record: dict[str, Any] = {
        "training_set_id": training_set_id,
        "lists_training_set_id": lists_id,
        "winner_training_set_id": sets[winner],
        "choose_by": deciding.metric.value,
        "of": deciding.of,
        "why": deciding.why,
        "spec": next(spec.record() for spec in specs if spec.name == winner),
        "specs": [
            {
                "name": spec.name,
                "role": spec.role.value,
                "rows": spec.rows.value,
                "training_set_id": sets[spec.name],
                "competed": spec.name in deciding.figures,
                "figure": deciding.figures.get(spec.name),
                VALIDATION_LISTS: shown.get(spec.name),
            }
            | {field: runs[spec.name][field] for field in ("run_id", "valid")}
            for spec in specs
        ],
        "untrained": [spec.name for spec in trained.specs if not sets[spec.name]],
        "lists": {name: measured.get(name) for name in ("questions_id", "best_simple", "unranked")} if measured else {},
    }
    _mark_runs(settings, run_key, runs, winner, shown)
    policy = _policy(measured, winner, validation_lists)
    write_json(folder.policy, policy.record())
    write_json(folder.choice, record | {"policy": policy.record()})
    if deciding.why:
        log.warning("rows decide: %s", deciding.why)
    log.info("%s wins by %s of the %s: %s", winner, deciding.metric.value, deciding.of, dict(deciding.figures))
    return {
        "spec": winner,
        "saved_model": str(folder.saved_model(winner)),
        "training_set": sets[winner],
        "policy": str(folder.policy),
        "choose_by": deciding.metric.value,
        "figures": dict(deciding.figures),
        "why": deciding.why,
    }


def _policy(measured: Mapping[str, Any] | None, winner: str, source: Path | None) -> ListPolicy:
    """Return how the winner's lists were made where it won; by declared quotas alone where no lists were measured."""
    if measured is None:
        return DECLARED
    lists = measured["lists"].get(winner, {})
    record = {QUOTAS: measured.get(QUOTAS, {}), RERANKING: lists.get(RERANKING, {})}
    return ListPolicy.from_json(record, str(source))


def _measured(path: Path, namespace: str, runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the record of the lists at the validation origin, once it is known to be of these models."""
    if not path.is_file():
        msg = f"{path}: expected what `{_COMMAND} --out {path}` writes, received no file; run it first"
        raise CandidateError(msg)
    record: dict[str, Any] = read_json(path)
    if absent := [part for part in _PARTS if part not in record]:
        msg = f"{path}: expected fields {list(_PARTS)}, {absent} are missing; run `{_COMMAND} --out {path}` again"
        raise CandidateError(msg)
    if record["namespace"] != namespace:
        msg = f"{path}: expected lists of namespace {namespace!r}, received {record['namespace']!r}; name another file"
        raise CandidateError(msg)
    for name, lists in record["lists"].items():
        expected = runs[name]["saved_model_sha256"] if name in runs else "none: this run did not train it"
        if lists["saved_model_sha256"] != expected:
            msg = (
                f"{path}, lists of {name}: expected those of the SavedModel {expected}, received those of "
                f"{lists['saved_model_sha256']!r}; run `{_COMMAND} --out {path}` with this run's models"
            )
            raise CandidateError(msg)
    return record


def _deciding(trained: Specs, runs: Mapping[str, Mapping[str, Any]], measured: Mapping[str, Any] | None) -> Deciding:
    """Return what decides, and its figures of the specs that compete and were trained."""
    why = ""
    if trained.choose_by is Metric.NDCG:
        competing = [spec.name for spec in trained.specs if spec.may_be_champion and spec.name in runs]
        by_lists = _by_lists(measured, competing) if measured and measured["lists"] else {}
        if any(figure is not None for figure in by_lists.values()):
            return Deciding(Metric.NDCG, by_lists)
        reasons = "; ".join(dict.fromkeys(measured["undefined"].values())) if measured else "none were asked for"
        why = (
            f"no lists were measured at the validation origin ({reasons or 'nobody was asked'}), "
            f"{trained.row_metric.value} decides"
        )
    metric = trained.row_metric
    names = [spec.name for spec in trained.by_rows if spec.name in runs]
    return Deciding(metric, {name: runs[name]["valid"][metric.value] for name in names}, why)


def _by_lists(measured: Mapping[str, Any], competing: list[str]) -> dict[str, float | None]:
    """Return spec → NDCG@10 of its lists; None where the record says why there is none."""
    shown = _shown(measured)
    if absent := [name for name in competing if name not in shown and name not in measured["undefined"]]:
        msg = (
            f"lists at the validation origin: expected those of {absent}, which compete, received those of "
            f"{sorted(shown)}; run `{_COMMAND}` with every trained model that competes"
        )
        raise CandidateError(msg)
    for name in sorted(set(competing) - shown.keys()):
        log.warning("%s has no lists at the validation origin: %s", name, measured["undefined"][name])
    return {name: shown.get(name) for name in competing}


def _shown(measured: Mapping[str, Any] | None) -> dict[str, float | None]:
    """Return spec → NDCG@10 of its lists at the validation origin; None where nobody is whom verdicts are about."""
    figures = {name: each[Metric.NDCG.value] for name, each in measured["lists"].items()} if measured else {}
    return {name: figure if figure is not None and math.isfinite(figure) else None for name, figure in figures.items()}


def _mark_runs(
    settings: Settings,
    run_key: str,
    runs: Mapping[str, Mapping[str, Any]],
    winner: str,
    shown: Mapping[str, float | None],
) -> None:
    """Say in each MLflow run whether its model was chosen, and how good its lists are."""
    client = tracking.connect(settings.mlflow_uri)
    with tracking.reaching(settings.mlflow_uri):
        for name, run in runs.items():
            run_id = run["run_id"]
            tracking.check_run(client, run_id, run_key)
            figure = shown.get(name)
            if figure is not None:
                started = client.get_run(run_id).info.start_time
                tracking.log_metrics(client, run_id, {VALIDATION_LISTS: figure}, started)
            tracking.set_tags(client, run_id, {tracking.CHOSEN: str(name == winner).lower()})


def winner_of(deciding: Deciding) -> str:
    """Return the name with the best figure, the first of equal ones.

    Raises:
        CandidateError: There is no figure.
    """
    defined = {name: figure for name, figure in deciding.figures.items() if figure is not None}
    if defined:
        return max(defined, key=lambda name: deciding.metric.sign * defined[name])
    subject = f"{deciding.metric.value} of the {deciding.of}"
    if not deciding.figures:
        msg = (
            f"{subject}: expected trained specs of rows: ranking that compete, received none"
            f"{f', and {deciding.why}' if deciding.why else ''}; train one beside those that learn from lists"
        )
        raise CandidateError(msg)
    msg = (
        f"{subject}: expected a figure of one of {sorted(deciding.figures)}, received none; rows of one class, and "
        "questions that nobody was asked, have none: give the training set more data"
    )
    raise CandidateError(msg)
