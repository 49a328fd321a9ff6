"""The page of measured lists: cells of a data set become a section, other data sets stay, nothing is undefined."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.publishing import write_json
from feature_repo.contracts.questions import Asked
from feature_repo.list_metrics import DECIDING, LIST_METRICS
from infra.bench.lists_cells import LEARNERS, Measured, is_measured, read_cells
from infra.bench.lists_page import write_page
from infra.bench.lists_targets import targets
from infra.bench.results import write_results
from serving.lists.report import CANDIDATE
from tests.lists_record import HISTORY, lists_record


def data_set(work, name, seeds=(1, 2), note=""):
    """Write what the benchmark keeps of a data set, with one cell for each seed; every figure grows with the seed."""
    record = lists_record(namespace=name)
    origin = record["origin"]
    about = {"namespace": name, "layout": "made up", "events": 9000, "days": 30, "origins": [origin], "note": note}
    write_json(work / name / "data.json", {**about, "questions_id": record["questions_id"]})
    for seed in seeds:
        mixed = {"channel": "ease", "share": 0.25} if seed == 1 else {"channel": "", "share": 0.0}
        policy = {"quotas": {"itemcf": 60, "new": 10}, "reranking": mixed}
        write_json(work / name / "cells" / f"x-seed{seed}.json", record | {"policy": policy})
        tables = [
            pa.table(
                {
                    "asked": [asked.value] * len(HISTORY),
                    "list": [row["list"]] * len(HISTORY),
                    "user_id": [f"u{user}" for user in range(len(HISTORY))],
                    "history": list(HISTORY),
                    **{metric: [0.1 * seed] * len(HISTORY) for metric in LIST_METRICS},
                }
            )
            for asked in Asked
            for row in record["tables"][0]["rows"]
        ]
        pq.write_table(pa.concat_tables(tables), work / name / "cells" / f"x-seed{seed}.parquet")
    return record


def test_the_cells_of_a_data_set_become_a_section_and_figures(tmp_path):
    record = data_set(tmp_path / "work", "shop")
    (measured,) = read_cells(tmp_path / "work")
    figures = {each.name: each for each in write_page([measured], tmp_path / "docs")}
    page = (tmp_path / "docs" / "quality.md").read_text(encoding="utf-8")
    assert "- **shop**: The served list cannot be told from the best simple list: NDCG@10 0.150 against 0.150" in page
    assert "2 cells of origin and seed" in page
    assert "25 % are of items that the user had before" in page
    assert "| Kestrel, as served | 0.150 to 0.150 | 0.150 |" in page
    assert (tmp_path / "docs" / "images" / "lists-shop.svg").read_text().startswith("<?xml")
    served = figures["shop, 2 cells: NDCG@10 of Kestrel, as served"]
    assert round(served.value, 9) == 0.15
    ratio = figures["shop, 2 cells: NDCG@10 of the served list over that of EASE"]
    assert (round(ratio.value, 9), ratio.target) == (1.0, 1.05)
    assert "| NDCG@10 of the served list over that of EASE | ≥ 1.050 | 1.000 | missed |" in page
    assert "as validation chose: 25% of ease in 1 cell, nothing in 1 cell. Quotas that it changed: new 10 for 5" in page
    assert measured.of_recall("best_possible") == record["recall"]["best_possible"]
    json.dumps([each.value for each in figures.values()], allow_nan=False)


def test_other_learners_are_on_the_page_the_best_first(tmp_path):
    data_set(tmp_path / "work", "shop")
    for seed, boosted in ((1, 0.2), (2, 0.4)):
        write_json(
            tmp_path / "work" / "shop" / "cells" / f"x-seed{seed}{LEARNERS}", {"lists": 0.25, "boosted": boosted}
        )
    write_page(read_cells(tmp_path / "work"), tmp_path / "docs")
    page = (tmp_path / "docs" / "quality.md").read_text(encoding="utf-8")
    assert "learned from: mean of 2 origins." in page
    assert "| boosted | 0.300 |\n| lists | 0.250 |" in page


def test_a_data_set_measured_elsewhere_stays_on_the_page_and_in_the_record(tmp_path):
    docs = tmp_path / "docs"
    data_set(tmp_path / "one", "films")
    write_results("lists", write_page(read_cells(tmp_path / "one"), docs), docs / "results")
    before = (docs / "quality.md").read_text(encoding="utf-8")
    data_set(tmp_path / "two", "shop", seeds=(1,))
    figures = write_page(read_cells(tmp_path / "two"), docs)
    page = (docs / "quality.md").read_text(encoding="utf-8")
    assert page.count("\n## films\n") == page.count("\n## shop\n") == 1
    assert before[before.index("\n## films\n") :].strip() in page
    assert {each.name.partition(",")[0] for each in figures} == {"films", "shop"}
    assert write_page(read_cells(tmp_path / "two"), docs)
    assert (docs / "quality.md").read_text(encoding="utf-8") == page


def test_a_data_set_without_cells_says_why(tmp_path):
    data_set(tmp_path / "work", "short", seeds=(), note="the log is too short")
    assert write_page(read_cells(tmp_path / "work"), tmp_path / "docs") == []
    page = (tmp_path / "docs" / "quality.md").read_text(encoding="utf-8")
    assert "- **short**: Lists were not measured: the log is too short." in page


def test_a_cell_counts_as_measured_with_its_figures_or_where_nobody_could_be_asked(tmp_path):
    cell = tmp_path / "x.json"
    assert not is_measured(cell, "asked")
    write_json(cell, {"questions_id": "asked", "tables": [{}]})
    assert not is_measured(cell, "asked")
    cell.with_suffix(".parquet").touch()
    assert is_measured(cell, "asked")
    assert not is_measured(cell, "others")
    cell.with_suffix(".parquet").unlink()
    write_json(cell, {"questions_id": "asked", "tables": []})
    assert is_measured(cell, "asked")


@pytest.mark.parametrize(("best", "allowed"), [("EASE", 0.2), ("ItemCF", 0.2), ("most liked, 30 days", 0.3)])
def test_the_overlap_that_is_allowed_follows_the_best_simple_list(best, allowed):
    """Half of the most liked's where the best list is personal; as much as that list has, where it is not."""
    overlaps = {CANDIDATE: 0.25, "most liked": 0.4, "most liked, 30 days": 0.3, "EASE": 0.1, "ItemCF": 0.1}
    rows = [{"list": name, "overlap": value, "coverage": value} for name, value in overlaps.items()]
    channels = [{"channel": "ease", "recall_at_200": 0.5}]
    cell = {
        "best_simple": best,
        "tables": [{"users": 3, "rows": rows}],
        "recall": {"recall_at_200": 0.6, "channels": channels},
    }
    figures = {
        "asked": [Asked.AT_ORIGIN.value] * 2,
        "list": [CANDIDATE, best],
        "user_id": ["u", "u"],
        "history": [9, 9],
        DECIDING: [0.3, 0.2],
    }
    served, recalled, overlap, coverage = targets(Measured({}, [cell], pa.table(figures)))
    assert served.value == pytest.approx(1.5)
    assert recalled.value == pytest.approx(1.2)
    assert (overlap.value, overlap.target) == (0.25, pytest.approx(allowed))
    assert (coverage.value, coverage.target) == (0.25, pytest.approx(0.05))


def test_a_target_whose_lists_were_not_measured_has_no_value():
    cell = {"best_simple": "EASE", "tables": [], "recall": {}}
    columns = ("asked", pa.string()), ("list", pa.string()), ("user_id", pa.string()), ("history", pa.int64())
    none = pa.schema([*columns, (DECIDING, pa.float64())]).empty_table()
    assert [each.value for each in targets(Measured({}, [cell], none))] == [None] * 4
