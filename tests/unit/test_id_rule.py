"""One rule of what an id is: a source's rows, in SQL, and what is sent, in Python, are judged alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from feature_repo.contracts.events import is_id
from pipelines.checks.judging import is_no_id

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXTS = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from("/\x00\x1f\x7f\x80\x9f\xa0 ")), min_size=1, max_size=140
)


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as database:
        yield database


@settings_of_hypothesis(deadline=None)
@given(_TEXTS)
def test_sql_and_python_agree_on_every_text(database: duckdb.DuckDBPyConnection, text: str) -> None:
    query = f"SELECT {is_no_id('text')} FROM (SELECT $1 AS text)"  # noqa: S608 - a column of this query
    assert database.execute(query, [text]).fetchall() == [(not is_id(text),)]


@pytest.mark.parametrize("text", ["x" * 129, "\U0001f600" * 129, "a/b", "a\nb", "a\x00", "\x7f", "\x85", "", "\ud800"])
def test_what_is_no_id(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize("text", ["x" * 128, "\U0001f600" * 128, "Ann Lee", "a:b", "\xa0", "%2F"])
def test_what_is_one(text: str) -> None:
    assert is_id(text)
