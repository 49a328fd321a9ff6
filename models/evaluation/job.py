"""The job `evaluate`: candidate, champion and baselines on the same test rows, twice; and the lists as measured."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from feature_repo.contracts.datasets import VALUE
from feature_repo.contracts.objectives import ORDERS, Metric
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import replacing, write_json
from feature_repo.contracts.signatures import RANKING_MODEL, is_pair_feature
from models import tracking
from models.candidate_folder import CandidateFolder
from models.dataset import (
    TEST,
    TEST_AS_OF_REFRESH,
    TRAIN,
    Dataset,
    Split,
    find_training_set,
    read_dataset,
    signature_of,
)
from models.errors import CandidateError, DatasetError
from models.evaluation import baselines, metrics
from models.evaluation.champion import Champion, score_champion
from models.evaluation.drift import input_drift
from models.evaluation.embedding_health import drift_from
from models.evaluation.export_cost import export_cost
from models.evaluation.golden import golden_requests
from models.evaluation.importance import permutation_importance
from models.evaluation.lists import check_same_champion, check_same_policy, log_lists, read_lists
from models.evaluation.plots import calibration_figure, importance_figure, roc_figure
from models.evaluation.slices import SLICE_CODES, slice_metrics, slice_rows, slices_record
from models.evaluation.table import CANDIDATE_ROW, CHAMPION_ROW, MEANS, POPULARITY
from models.export import check_signatures
from models.gates.margins import read_margins
from models.saved_model_loader import SavedModel
from models.specs.spec import Role, parse_spec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import mlflow
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from feature_repo.contracts.objectives import Objective
    from models.evaluation.slices import Sliced
    from models.settings import Settings
    from models.specs.spec import Spec
    from models.transforms import Transforms

log = logging.getLogger(__name__)
SPLITS = (TEST, TEST_AS_OF_REFRESH)
_DRIFT_ROWS = 100_000
"""Train rows that drift is measured beside, at most: shares are exact to a thousandth."""
_MEASURED = ("auc", "gauc", "log_loss", "brier", "rmse", "ece", "observed_over_expected")


def evaluate(settings: Settings, namespace_name: str, training_set_id: str, run_key: str) -> dict[str, object]:
    """Write `evaluation.json`, `evaluation_scores.npz`, `golden.json` and plots, log them; return the test metrics.

    Of the trained specs only the one that was chosen and the baselines are scored, on the test rows of the training set
    that the chosen one has learned from. A baseline that reads what these rows have not is left out.

    Args:
        settings: The model plane's.
        namespace_name: The data set's.
        training_set_id: The training set of kind RANKING, which names the run.
        run_key: Names the training run.
    """
    namespace = Namespace(settings.state, namespace_name)
    folder = CandidateFolder(namespace, run_key)
    choice = folder.chosen(training_set_id)
    name = choice["spec"]["name"]
    trained = {CANDIDATE_ROW: name} | {
        each["name"]: each["name"] for each in choice["specs"] if each["role"] == Role.BASELINE
    }
    sets = {each["name"]: each["training_set_id"] for each in choice["specs"]}
    runs = {row: folder.run_of(spec, sets[spec]) for row, spec in trained.items()}
    candidate = runs[CANDIDATE_ROW]
    _check_recorded(candidate)
    lists = read_lists(folder.lists, namespace_name, training_set_id, candidate["saved_model_sha256"])
    client = tracking.connect(settings.mlflow_uri)
    rows = find_training_set(namespace, choice["winner_training_set_id"])
    spec = parse_spec(candidate["spec"])
    dataset = read_dataset(rows, SPLITS, kind=spec.rows)
    _check_same_rows(dataset)
    signature = signature_of(dataset.record, spec.features, spec.learned)
    check_signatures(folder.saved_model(name), signature)  # no figure means anything of one that takes other columns
    with tracking.reaching(settings.mlflow_uri):
        tracking.check_run(client, candidate["run_id"], run_key)
        champion = score_champion(client, folder, dataset, SPLITS)
    check_same_champion(lists, champion.named if champion else "")
    check_same_policy(lists, choice)
    models = {row: SavedModel(folder.saved_model(spec)) for row, spec in trained.items()}
    left_out = _left_out(models, dataset)
    models = {row: model for row, model in models.items() if row not in left_out}
    runs = {row: run for row, run in runs.items() if row not in left_out}
    scores = {split: _all_scores(models, dataset, split, champion) for split in SPLITS}
    objectives = {row: parse_spec(run["spec"]).learned for row, run in runs.items()}
    if champion:
        objectives[CHAMPION_ROW] = champion.objective
    golden = golden_requests(
        models[CANDIDATE_ROW],
        dataset[TEST],
        signature,
        rows=settings.golden_rows,
        users=settings.golden_users,
        candidates=settings.golden_candidates,
        seed=settings.seed,
    )
    table = {
        split: {
            name: _measure(dataset[split], values, objectives.get(name), settings.ece_bins)
            for name, values in by_model.items()
        }
        for split, by_model in scores.items()
    }
    declared = read_margins(RANKING_MODEL, settings.gate_margins)
    slices = slice_rows(declared.slices, dataset[TEST].features, dataset.signature.input_columns)
    examined = _examined(folder, models[CANDIDATE_ROW], dataset, spec, settings)
    record: dict[str, Any] = {
        "training_set_id": dataset.record.training_set_id,
        "candidate": {"model": name, **{field: candidate[field] for field in ("run_id", "weights_sha256")}},
        "choice": {field: choice[field] for field in ("choose_by", "of", "why", "specs", "untrained")},
        "left_out": left_out,
        "objectives": {row: objective.to_json() for row, objective in objectives.items()},
        "champion": _describe(champion),
        "rows": dataset[TEST].rows,
        "users": int(dataset[TEST].users.max()) + 1,
        "positives": float(dataset[TEST].labels.mean()),
        "metrics": table,
        "slices": slices_record(
            slices,
            dataset[TEST].labels,
            dataset[TEST].users,
            scores[TEST],
            {row: objectives[row].metrics if row in objectives else ORDERS for row in scores[TEST]},
        ),
        **examined,
        "embeddings": _embeddings(candidate["embeddings"], models[CANDIDATE_ROW], champion, dataset.transforms),
        "signature_differences": [],
        "lists": lists,
    }
    _write_scores(folder.scores, dataset[TEST], scores, slices)
    write_json(folder.golden, golden)
    figures = _figures(dataset[TEST].labels, scores[TEST], objectives, settings.ece_bins)
    figures["importance"] = importance_figure(examined["importance"])
    _write_plots(folder.plots, figures)
    write_json(folder.evaluation, record)
    with tracking.reaching(settings.mlflow_uri):
        for row, run in runs.items():
            of_slices = slice_metrics(record["slices"]) if row == CANDIDATE_ROW else {}
            _log_figures(client, run["run_id"], {split: table[split][row] for split in SPLITS}, of_slices)
        client.log_artifact(candidate["run_id"], str(folder.golden))
        client.log_artifact(candidate["run_id"], str(folder.evaluation))
        client.log_artifacts(candidate["run_id"], str(folder.plots), "plots")
        log_lists(client, candidate["run_id"], folder.lists, lists)
    return {"run_id": candidate["run_id"], "metrics": table[TEST], "champion": champion.version if champion else ""}


def _check_recorded(candidate: Mapping[str, Any]) -> None:
    if "embeddings" not in candidate:
        msg = (
            f"run key {candidate['run_key']}: {candidate['model']} was trained by an earlier release, which recorded "
            "nothing of its embeddings; train with another run key"
        )
        raise CandidateError(msg)


def _examined(
    folder: CandidateFolder, candidate: SavedModel, dataset: Dataset, spec: Spec, settings: Settings
) -> dict[str, Any]:
    """Return what is measured of the candidate alone: drift and importance of inputs, size and time of its export."""
    signature, test = signature_of(dataset.record, spec.features, spec.learned), dataset[TEST]
    importance = permutation_importance(
        candidate,
        test,
        signature,
        rows=settings.importance_rows,
        repeats=settings.importance_repeats,
        seed=settings.seed,
    )
    return {
        "input_drift": _input_drift(dataset, spec, settings.seed),
        "importance": importance,
        "export": export_cost(folder.saved_model(spec.name), candidate, test, signature, settings.seed),
    }


def _input_drift(dataset: Dataset, spec: Spec, seed: int) -> dict[str, float]:
    """Return how far each input of the candidate moved from the train rows to the test rows."""
    rows = dataset.record.rows[TRAIN]
    drawn = np.sort(np.random.default_rng(seed).choice(rows, min(_DRIFT_ROWS, rows), replace=False))
    train = read_dataset(dataset.directory, (TRAIN,), spec.features, spec.learned, spec.rows, places=drawn)
    return input_drift(train[TRAIN].features, dataset[TEST].features, train.signature)


def _embeddings(
    health: Mapping[str, Any], candidate: SavedModel, champion: Champion | None, transforms: Transforms
) -> dict[str, Any]:
    """Return what training says of the candidate's embeddings, with the drift of each table from the champion's."""
    vocabularies = {each["table"]: each["vocabulary"] for each in health["tables"]}
    drift = (
        drift_from(candidate.weights, champion.weights, vocabularies, transforms.vocabularies, champion.terms)
        if champion
        else {}
    )
    return {**health, "tables": [each | {"from_champion": drift.get(each["table"])} for each in health["tables"]]}


def _check_same_rows(dataset: Dataset) -> None:
    live, refreshed = dataset[TEST], dataset[TEST_AS_OF_REFRESH]
    if live.rows == 0:
        msg = f"training set {dataset.record.training_set_id}: expected test rows, received none; give it more data"
        raise DatasetError(msg)
    if not np.array_equal(live.labels, refreshed.labels) or not np.array_equal(
        live.features["item_id"], refreshed.features["item_id"]
    ):
        msg = (
            f"training set {dataset.record.training_set_id}: test and test_as_of_refresh have to hold the same rows in "
            "the same order; build it again"
        )
        raise DatasetError(msg)


def _left_out(models: Mapping[str, SavedModel], dataset: Dataset) -> dict[str, str]:
    """Return row → why it has no scores, of the baselines that read what the rows have not."""
    there = dataset[TEST].features.keys()
    absent = {row: sorted(model.specs.keys() - there) for row, model in models.items() if row != CANDIDATE_ROW}
    return {
        row: f"The {row} baseline has no scores: rows of kind {dataset.record.kind} lack {len(inputs)} of its inputs, "
        f"such as {next(filter(is_pair_feature, inputs), inputs[0])}."
        for row, inputs in absent.items()
        if inputs
    }


def _all_scores(
    models: Mapping[str, SavedModel], dataset: Dataset, split: str, champion: Champion | None
) -> dict[str, NDArray[Any]]:
    """Return name → scores of one split, in the order in which people read them; all of them finite."""
    features = dataset[split].features
    ours = {row: model.predict(features) for row, model in models.items()}
    scores = {
        CANDIDATE_ROW: ours[CANDIDATE_ROW],
        **({CHAMPION_ROW: champion.scores[split]} if champion and champion.scores else {}),
        **ours,
        MEANS: baselines.means(features, dataset.record.prior_mean),
        POPULARITY: baselines.popularity(features),
    }
    return {name: metrics.check_finite(values, f"{name}, split {split}") for name, values in scores.items()}


def _log_figures(
    client: mlflow.MlflowClient,
    run_id: str,
    figures: Mapping[str, Mapping[str, float | None]],
    of_slices: Mapping[str, float],
) -> None:
    """Log the test figures of a run, which had none when it was trained."""
    found = {
        f"{split}_{metric}": value
        for split, measured in figures.items()
        for metric, value in measured.items()
        if value is not None
    }
    tracking.log_metrics(client, run_id, found | dict(of_slices), client.get_run(run_id).info.start_time)


def _measure(split: Split, scores: NDArray[Any], objective: Objective | None, bins: int) -> dict[str, float | None]:
    """Return the metrics of one row of the table, None where they are not defined; untrained rows have no objective."""
    found = metrics.of_scores(split, scores, objective.metrics if objective else ORDERS, bins)
    return {metric: _finite(found.get(metric, float("nan"))) for metric in _MEASURED}


def _finite(value: float) -> float | None:
    """Return `value`, or None where the rows do not define it: JSON has no NaN."""
    return value if np.isfinite(value) else None


def _describe(champion: Champion | None) -> dict[str, Any]:
    if champion is None:
        nobody = dict.fromkeys(("version", "run_id", "named", "weights_sha256"), "")
        return nobody | {"incomparable": "there is no champion yet"} | {"retired_views": [], "unregistered": False}
    return {
        "version": champion.version,
        "run_id": champion.run_id,
        "named": champion.named,
        "weights_sha256": champion.weights_sha256,
        "incomparable": champion.incomparable,
        "retired_views": champion.retired_views,
        "unregistered": champion.unregistered,
    }


def _write_scores(
    path: Path, test: Split, scores: dict[str, dict[str, NDArray[Any]]], slices: Mapping[str, Sliced]
) -> None:
    arrays = {f"{split}.{name}": values for split, by_model in scores.items() for name, values in by_model.items()}
    arrays |= {f"{SLICE_CODES}{kind}": sliced.codes for kind, sliced in slices.items()}
    with replacing(path) as part, part.open("wb") as stream:
        np.savez_compressed(
            stream, allow_pickle=False, labels=test.labels, values=test.target(VALUE), users=test.users, **arrays
        )


def _figures(
    labels: NDArray[Any], scores: dict[str, NDArray[Any]], objectives: Mapping[str, Objective], bins: int
) -> dict[str, Figure]:
    probabilities = {
        name: values for name, values in scores.items() if name in objectives and objectives[name].probability
    }
    # Rows in one order tell of nothing where only a user's own are compared.
    ordered = {
        name: values for name, values in scores.items() if name not in objectives or _orders_all(objectives[name])
    }
    figures = {}
    if CANDIDATE_ROW in ordered:
        figures["comparison_roc"] = roc_figure(TEST, labels, ordered)
    if CANDIDATE_ROW in probabilities:
        figures["comparison_calibration"] = calibration_figure(TEST, labels, probabilities, bins)
    return figures


def _orders_all(objective: Objective) -> bool:
    return Metric.AUC in objective.metrics


def _write_plots(folder: Path, figures: dict[str, Figure]) -> None:
    """Write each figure as PNG for MLflow and as SVG for the report; those of another choice go."""
    for path in folder.glob("*.*"):
        if path.stem not in figures:
            path.unlink()
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            with replacing(folder / f"{name}.{kind}") as part:
                figure.savefig(part, format=kind, metadata={"Date": None} if kind == "svg" else None)
        plt.close(figure)
