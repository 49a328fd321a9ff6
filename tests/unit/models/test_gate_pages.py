"""The gates' report and the model card: what the data say is text, and what is undefined is a dash."""

from __future__ import annotations

import pytest

from models.evaluation.table import CANDIDATE_ROW, CHAMPION_ROW
from models.gates.margins import read_margins
from models.gates.report import render, render_card

HOSTILE = '"><script>alert(1)</script>'
FIGURES = {"auc": 0.7, "gauc": None, "log_loss": 1e-5, "brier": None, "ece": None, "observed_over_expected": None}
GATE = {
    "name": "slices_user_town",
    "verdict": "warning",
    "figure": None,
    "threshold": ">= -0.1",
    "interval": None,
    "details": f"GAUC of the slice {HOSTILE} is low.",
}
REPORT = {
    "model": "toy.ranking",
    "spec": "deepfm",
    "version": "3",
    "decision": "promote",
    "reason": f"Promoted beside {HOSTILE}",
    "gates": [GATE],
    "calibration": [],
    "metrics": {split: {CANDIDATE_ROW: FIGURES, CHAMPION_ROW: FIGURES} for split in ("test", "test_as_of_refresh")},
    "slices": {
        "user_town": [
            {"slice": HOSTILE, "rows": 5, "users": 2, "figures": dict.fromkeys((CANDIDATE_ROW, CHAMPION_ROW), FIGURES)}
        ]
    },
    "input_drift": {"user_town": 0.1},
    "importance": {"metric": "auc", "features": [{"feature": "user_town", "drop": None, "spread": None}]},
    "embeddings": {"tables": [], "hashed": []},
    "export": {"bytes": 1e6, "candidates": 200, "p50_ms": 1.0},
    "rows": 5,
    "users": 2,
    "positives": 0.5,
    "champion": {"version": "2", "named": HOSTILE, "incomparable": HOSTILE},
    "choice": {"choose_by": "auc", "of": "valid rows", "specs": [], "why": HOSTILE},
    "left_out": {"lr": HOSTILE},
    "run_id": "r",
    "saved_model_sha256": "s",
    "weights_sha256": "w",
    "training_set": {
        "training_set_id": "toy",
        "kind": "ranking",
        "cutoff": "2024-01-01",
        "train_end": "2023-12-01",
        "valid_end": "2023-12-15",
        "label_min_value": 4.0,
        "views": {"user": HOSTILE},
        "rows": {"train": 10, "valid": 5},
    },
    "settings": read_margins("ranking").model_dump(mode="json"),
    "lists": HOSTILE,
    "policy": {"reranking": {"share": 0}, "quotas": {HOSTILE: 1}},
}
RUN = {
    "spec": {"class": "deepfm", "objective": "probability", "config": {"name": HOSTILE}},
    "run_key": HOSTILE,
    "seed": 1,
    "code": {"commit": "", "lock_sha256": ""},
}
SIGNATURE = {
    "objective": {"score": HOSTILE, "probability": True},
    "inputs": [{"name": "user_town", "scope": "user", "meaning": HOSTILE}],
}


@pytest.mark.parametrize("page", [render(REPORT, {}), render_card(REPORT, RUN, SIGNATURE)])
def test_what_the_data_say_is_text(page):
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\N{EN DASH}" in page, "an undefined figure is a dash"
    assert "1e-05" in page, "a tiny one is no 0.0000"
