"""The declaration of the kinds of embeddings: names, view names, settings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from feature_repo.contracts.embeddings import (
    EMBEDDING_GROUPS,
    ITEM2VEC,
    NODE2VEC,
    embeddings_named,
)
from pipelines.errors import JobError
from pipelines.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path


def test_kinds_come_in_the_order_of_their_declaration() -> None:
    assert embeddings_named(["node2vec", "item2vec"]) == (ITEM2VEC, NODE2VEC)


@pytest.mark.parametrize("names", [[], ["item2vec", "word2vec"], ["item2vec", "item2vec"], [""]])
def test_names_that_are_none_or_come_twice_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="one or more of item2vec, deepwalk, node2vec, eges, each once"):
        embeddings_named(names)


def test_a_changed_parameter_is_another_view_and_other_kinds_keep_theirs() -> None:
    assert len({group.view_name for group in EMBEDDING_GROUPS}) == len(EMBEDDING_GROUPS) == 8
    wider = replace(ITEM2VEC, skip_gram=replace(ITEM2VEC.skip_gram, window=11))
    recomputed = replace(ITEM2VEC, revision=2)
    names = {kind.item_group.view_name for kind in (ITEM2VEC, wider, recomputed)}
    assert len(names) == 3


def test_settings_name_the_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KESTREL_STATE", str(tmp_path))
    monkeypatch.delenv("KESTREL_EMBEDDINGS", raising=False)
    assert load_settings().embedding_names == ("item2vec",)
    monkeypatch.setenv("KESTREL_EMBEDDINGS", " node2vec, deepwalk ")
    assert load_settings().embedding_names == ("deepwalk", "node2vec")
    monkeypatch.setenv("KESTREL_EMBEDDINGS", "item2vec,graph2vec")
    with pytest.raises(JobError, match=r"KESTREL_EMBEDDINGS: .*one or more of item2vec, deepwalk, node2vec, eges"):
        load_settings()
