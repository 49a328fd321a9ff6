"""The job `choose`: which of the trained specs is evaluated. Validation rows decide; no test row was looked at yet."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import write_json
from models import tracking
from models.candidate_folder import CandidateFolder, check_same_spec
from models.errors import CandidateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_repo.contracts.objectives import Metric
    from models.settings import Settings
    from models.specs.spec import Specs

log = logging.getLogger(__name__)


def choose(
    settings: Settings, namespace_name: str, training_set_id: str, run_key: str, trained: Specs
) -> dict[str, object]:
    """Write `choice.json` and mark the runs; return the winner, where its SavedModel lies, and all figures.

    Of equal figures the first spec's counts.

    Raises:
        CandidateError: A spec was not trained, or trained otherwise; or none that competes has a figure.
    """
    folder = CandidateFolder(Namespace(settings.state, namespace_name), run_key)
    specs, choose_by = trained.specs, trained.choose_by
    runs = {spec.name: folder.run_of(spec.name, training_set_id) for spec in specs}
    for spec in specs:
        check_same_spec(run_key, runs[spec.name], spec.record())
    figures = {spec.name: runs[spec.name]["valid"][choose_by.value] for spec in specs if spec.may_be_champion}
    winner = winner_of(figures, choose_by)
    record: dict[str, Any] = {
        "training_set_id": training_set_id,
        "choose_by": choose_by.value,
        "spec": next(spec.record() for spec in specs if spec.name == winner),
        "specs": [
            {"name": spec.name, "role": spec.role.value, "competed": spec.may_be_champion}
            | {field: runs[spec.name][field] for field in ("run_id", "valid")}
            for spec in specs
        ],
    }
    client = tracking.connect(settings.mlflow_uri)
    with tracking.reaching(settings.mlflow_uri):
        for spec in specs:
            run_id = runs[spec.name]["run_id"]
            tracking.check_run(client, run_id, run_key)
            tracking.set_tags(client, run_id, {tracking.CHOSEN: str(spec.name == winner).lower()})
    write_json(folder.choice, record)
    log.info("%s wins by %s of the validation rows: %s", winner, choose_by.value, figures)
    return {
        "spec": winner,
        "saved_model": str(folder.saved_model(winner)),
        "choose_by": choose_by.value,
        "figures": figures,
    }


def winner_of(figures: Mapping[str, float | None], choose_by: Metric) -> str:
    """Return the name with the best figure, the first of equal ones; None is a figure that the rows do not define.

    Raises:
        CandidateError: There is no figure.
    """
    defined = {name: figure for name, figure in figures.items() if figure is not None}
    if not defined:
        msg = (
            f"{choose_by.value} of the validation rows: expected a figure of one of {sorted(figures)}, received none; "
            "the rows have one class: give the training set more data"
        )
        raise CandidateError(msg)
    return max(defined, key=lambda name: choose_by.sign * defined[name])
