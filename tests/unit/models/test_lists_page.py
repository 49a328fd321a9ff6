"""Measured lists on their way to MLflow: metrics, a table, and a page for people."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from feature_repo.contracts.publishing import write_json
from models.errors import CandidateError
from models.evaluation import lists as page
from models.evaluation.lists import check_same_champion, figures, read_lists, render, table
from tests.lists_record import LIKED, lists_record, unmeasured_record

_VALID_FOR_MLFLOW = re.compile(r"[\w./ -]{1,250}")
_VOID = {"meta", "br"}


class Outline(HTMLParser):
    """Looks whether every element is closed, and keeps the texts by their innermost element."""

    def __init__(self, html):
        super().__init__()
        self.open, self.texts = [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in _VOID:
            self.open.append((tag, dict(attrs).get("class", "")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def of(self, tag, class_=None):
        return [text for (own, kind), text in self.texts if own == tag and class_ in {None, kind}]


def without_figures(value):
    """Return a record in which every figure is undefined; counts stay."""
    if isinstance(value, dict):
        return {key: without_figures(each) for key, each in value.items()}
    if isinstance(value, list):
        pair = len(value) == 2 and all(isinstance(each, float) for each in value)
        return None if pair else [without_figures(each) for each in value]
    return None if isinstance(value, float) else value


def written(folder, record):
    write_json(folder / "lists.json", record)
    return folder / "lists.json"


def test_figures_are_those_of_the_candidate_and_of_the_best_simple_list():
    record = lists_record()
    measured = figures(record)
    rows = {row["list"]: row for row in record["tables"][0]["rows"]}
    assert measured["lists_candidate_ndcg_at_10"] == rows["candidate"]["ndcg_at_10"]
    assert measured["lists_best_simple_overlap"] == rows[record["best_simple"]]["overlap"]
    assert len(measured) == 22
    assert all(_VALID_FOR_MLFLOW.fullmatch(name) for name in measured)


def test_undefined_figures_are_no_metrics():
    record = lists_record()
    record["tables"][0]["rows"][0]["coverage"] = None
    assert "lists_candidate_coverage" not in figures(record)
    assert figures(lists_record(candidate=False)).keys() == {
        name for name in figures(lists_record()) if name.startswith("lists_best_simple_")
    }
    assert figures(unmeasured_record("there is no test origin")) == {}


def test_every_figure_of_a_list_has_a_column():
    row = lists_record()["tables"][0]["rows"][0]
    assert row.keys() - {"list", "interval"} == page._COLUMNS.keys()


def test_table_has_the_rows_of_all_tables_in_mlflows_form():
    record = lists_record()
    made = table(record)
    assert len(made["data"]) == sum(len(each["rows"]) for each in record["tables"])
    assert all(len(row) == len(made["columns"]) for row in made["data"])
    first = dict(zip(made["columns"], made["data"][0], strict=True))
    assert (first["asked"], first["history"], first["list"]) == ("at_origin", "5+", "candidate")
    assert [first["ndcg_at_10_low"], first["ndcg_at_10_high"]] == record["tables"][0]["rows"][0]["interval"]
    assert table(unmeasured_record("there is no test origin"))["data"] == []


def test_page_begins_with_the_sentence_and_needs_nothing_else():
    record = lists_record()
    html = render(record)
    outline = Outline(html)
    assert outline.of("section") == [record["sentence"]]
    headings = outline.of("h2")
    assert headings == [
        *("Asked at the origin", "Asked just before the next event", "A busy, a middling and a quiet user"),
        *("Users by history", "What recall and ranking each lose", "Channels", "Slices", "Simple lists", "Undefined"),
    ]
    assert "4 users with 5+ events before it, 12 answers" in outline.of("span", "soft")
    assert "25.0 % of what they liked is left out" in html
    assert {"champion", "at the origin, 0 events"} <= set(outline.of("dt"))
    assert "there is no champion yet" in outline.of("dd")
    assert "λ 200" in outline.of("td")
    assert not re.search(r"src=|href=|url\(|http", html)


def test_the_best_figure_of_a_column_is_marked_and_little_overlap_is_best():
    record = lists_record()
    rows = record["tables"][0]["rows"]
    best = page._best(rows)
    assert best["ndcg_at_10"] == max(row["ndcg_at_10"] for row in rows)
    assert best["overlap"] == min(row["overlap"] for row in rows)
    assert f'<td class="n best">{best["ndcg_at_10"]:.3f}</td>' in render(record)
    assert page._best(rows[:1]) == {}


def test_titles_are_text_and_hits_are_marked_on_both_sides():
    outline = Outline(render(lists_record()))
    assert ("b", "") not in {element for element, _ in outline.texts}
    assert outline.of("li").count(LIKED) > 3
    hits = outline.of("li", "hit")
    assert hits.count(LIKED) == 2 * sum(
        any(item["liked"] and item["title"] == LIKED for item in one["shown"]) for one in lists_record()["examples"]
    )
    assert hits


def test_a_page_without_any_figure_has_dashes():
    record = without_figures(lists_record())
    outline = Outline(render(record))
    assert "–" in outline.of("td", "n")  # noqa: RUF001 - as the page has it
    assert "What recall and ranking each lose" not in outline.of("h2")


def test_without_a_candidate_nobody_knows_what_ranking_loses():
    html = render(lists_record(candidate=False))
    assert "Nobody knows what ranking loses" in Outline(html).of("strong")[1]
    assert "lost by ranking" not in html


def test_where_nobody_has_a_long_history_the_page_says_so():
    html = render(lists_record(history=(2, 0)))
    assert "nobody with 5 events or more" in Outline(html).of("section")[0]


def test_what_was_not_measured_is_a_sentence_and_a_reason():
    outline = Outline(render(unmeasured_record("there is no <test> origin")))
    assert outline.of("section") == ["Lists were not measured: there is no <test> origin."]
    assert outline.of("h2") == ["Undefined"]
    assert outline.of("dd") == ["there is no <test> origin"]


def test_lists_are_read_as_they_were_written(tmp_path):
    for record in (lists_record(), unmeasured_record("there is no test origin")):
        assert read_lists(written(tmp_path, record), "toy", "toy", "") == record


def test_absent_lists_name_the_command_that_writes_them(tmp_path):
    with pytest.raises(CandidateError, match=r"`python -m serving\.lists measure --out .*lists\.json`.*run it first"):
        read_lists(tmp_path / "lists.json", "toy", "toy", "")


def test_incomplete_lists_are_refused(tmp_path):
    record = lists_record()
    del record["recall"]
    with pytest.raises(CandidateError, match=r"\['recall'\] are missing"):
        read_lists(written(tmp_path, record), "toy", "toy", "")


@pytest.mark.parametrize("other", [{"training_set_id": ""}, {"training_set_id": "another"}, {"namespace": "others"}])
def test_lists_of_another_training_set_are_refused(tmp_path, other):
    path = written(tmp_path, lists_record(**other))
    with pytest.raises(CandidateError, match="expected lists for questions about namespace 'toy', training set 'toy'"):
        read_lists(path, "toy", "toy", "")


def test_lists_of_another_model_are_refused(tmp_path):
    path = written(tmp_path, lists_record(saved_model_sha256="1" * 64))
    with pytest.raises(
        CandidateError, match=f"expected lists of the SavedModel {'2' * 64}, received those of '{'1' * 64}'"
    ):
        read_lists(path, "toy", "toy", "2" * 64)


def test_the_page_says_whose_the_champions_lists_are():
    named = "champion version 7 (its spec fitted again on events before May)"
    assert f"<em>champion</em> is {named}." in render(lists_record() | {"champion": named})
    assert "<em>champion</em>" not in render(lists_record())
    before = {name: each for name, each in lists_record().items() if name != "champion"}
    assert "<em>champion</em>" not in render(before), "a record of before"


def test_lists_and_rows_are_of_one_champion():
    record = lists_record() | {"champion": "champion version 7"}
    check_same_champion(record, "champion version 7")
    check_same_champion(lists_record(), "champion version 7")
    for other in ("champion version 8", ""):
        with pytest.raises(CandidateError, match=r"lists of champion version 7: expected those of .*; another came"):
            check_same_champion(record, other)
