"""The map of a snapshot's items: what its colours mean, and which names stand in it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.contracts.embeddings import EMBEDDING_SIZE, VECTOR
from pipelines.embeddings.projection import projection_svg
from pipelines.embeddings.report import Description

ITEMS = [(f"i{number}", 40 - number) for number in range(12)]


def drawn(terms: tuple[str, ...], name: str = "Mug of $5 or $6") -> str:
    vectors = np.random.default_rng(3).normal(size=(len(ITEMS), EMBEDDING_SIZE)).astype(np.float32)
    snapshot = pa.table({"item_id": [item for item, _ in ITEMS], VECTOR.name: pa.array(list(vectors))})
    return projection_svg("item2vec", snapshot, ITEMS, {item: Description(name, terms) for item, _ in ITEMS})


@pytest.mark.parametrize(
    ("terms", "legend", "other"), [(("home",), "home", "users who liked it"), ((), "users who liked it", "home")]
)
def test_items_are_coloured_by_their_term_or_else_by_who_liked_them(
    terms: tuple[str, ...], legend: str, other: str
) -> None:
    picture = drawn(terms)
    assert f">{legend}</text>" in picture
    assert f">{other}</text>" not in picture
    assert ">other</text>" not in picture, "a legend names no colour that is not there"
    assert ">Mug of $5 or $6</text>" in picture, "a name is no formula"
    assert picture == drawn(terms), "equal figures are equal bytes"


def test_a_long_name_is_cut() -> None:
    assert ">White hanging heart T-light…</text>" in drawn((), "White hanging heart T-light holder")


def test_a_name_is_no_markup() -> None:
    picture = drawn((), "<script>mug</script>")
    assert ">&lt;script&gt;mug&lt;/script&gt;</text>" in picture
    assert "<script" not in picture
