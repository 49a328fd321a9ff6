"""The catalogue of models, as people and programs read it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.ranking.catalogue import RANKING_MODELS
from models.ranking.listing import COSTS, listing, measured_costs, to_markdown

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", sorted(RANKING_MODELS))
def test_a_class_names_its_paper_and_its_module_cites_it(name):
    model = RANKING_MODELS[name]
    assert re.fullmatch(r"[A-Z].+, .+ \([A-Za-z ,-]+ \d{4}\)", model.paper)
    title, venue = re.fullmatch(r".*?, ([^,]*) (\([^)]*\))", model.paper).groups()
    cited = " ".join(sys.modules[model.__module__].__doc__.split())
    assert venue in cited
    assert title.split(":")[0].strip().split()[-1] in cited
    assert set(model.inputs) <= {"fields", "user", "item", "history", "sessions"}


def test_the_page_is_what_the_catalogue_says():
    page = ROOT / "docs" / "ranking-models.md"
    costs = measured_costs(ROOT / "docs" / "results" / "models.json")
    remedy = "run: python -m models catalogue --page docs/ranking-models.md"
    assert page.read_text(encoding="utf-8") == to_markdown(listing(costs)), remedy


def test_costs_are_those_that_were_measured(tmp_path):
    results = tmp_path / "models.json"
    assert measured_costs(results) == {}
    figures = [{"name": "deepfm p50_ms", "value": 1.25}, {"name": "deepfm auc", "value": 0.7}]
    results.write_text(json.dumps({"figures": figures}), encoding="utf-8")
    found = {each["name"]: each["cost"] for each in listing(measured_costs(results))}
    assert found["deepfm"] == {"p50_ms": 1.25, "bytes": None, "seconds_per_million_rows": None}
    assert found["lr"] == dict.fromkeys(COSTS)


def test_the_command_prints_one_object():
    from models.__main__ import app

    result = CliRunner().invoke(app, ["catalogue"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert {each["name"] for each in found["ranking"]} == RANKING_MODELS.keys()
    assert found["retrieval"] == []
