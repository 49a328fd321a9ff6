"""The model plane's jobs in tests: small fits, loose margins, and a judgement that needs no server of lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import write_json
from tests.lists_record import lists_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from models.gates.margins import Margins
    from models.settings import Settings
    from models.specs.spec import Specs

QUICK = {"fit": {"batch_size": 256, "epochs": 8, "learning_rate": 5e-3}}
CHECK = {
    "requests": 3,
    "rows": 60,
    "max_abs_difference": 0.0,
    "grpc": {"p50_ms": 1.0, "p99_ms": 2.0},
    "rest": {"p50_ms": 1.0, "p99_ms": 2.0},
}


def quick_specs(*records: Mapping[str, Any]) -> Specs:
    """Return quick specs: those given, or what is shipped."""
    from models.specs.spec import parse_spec, read_specs

    shipped = read_specs("ranking")
    if records:
        return shipped.model_copy(
            update={"specs": tuple(parse_spec({"config": QUICK} | each).whole() for each in records)}
        )
    return shipped.chosen(configs={spec.name: QUICK for spec in shipped.specs})


def loose_margins() -> Margins:
    """Return margins as loose as the toy's data is small."""
    from models.evaluation.table import CHANCE
    from models.gates.margins import read_margins

    shipped = read_margins("ranking")
    return shipped.model_copy(
        update={
            "resamples": 200,
            "min_users": 2,
            "lists": tuple(each.model_copy(update={"margin": 1.0}) for each in shipped.lists),
            "comparisons": tuple(
                each if each.reference == CHANCE else each.model_copy(update={"margin": 0.5, "margin_share": None})
                for each in shipped.comparisons
            ),
            "limits": shipped.limits.model_copy(
                update={
                    "calibration_error": 0.5,
                    "calibration_shift": 0.5,
                    "slice_lag": 1.0,
                    "one_user_p50_ms": 10_000.0,
                }
            ),
        }
    )


def judge(
    settings: Settings,
    run_key: str,
    training_set: str,
    runs: Mapping[str, Mapping[str, Any]],
    chosen: Mapping[str, Any],
    *,
    margins: Margins | None = None,
) -> tuple[dict[str, Any], Path]:
    """Evaluate and gate what was chosen, with lists that were measured of it."""
    from models.evaluation.job import evaluate
    from models.gates.job import gate

    folder = Namespace(settings.state, "toy").candidates / run_key
    sha256 = runs[chosen["spec"]]["saved_model_sha256"]
    write_json(folder / "lists.json", lists_record(training_set_id=training_set, saved_model_sha256=sha256))
    evaluate(settings, "toy", training_set, run_key)
    write_json(folder / "serving_check.json", CHECK)
    return gate(settings, "toy", training_set, run_key, margins or loose_margins()), folder
