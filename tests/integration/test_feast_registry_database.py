"""Feast's registry in one PostgreSQL database for all namespaces, by setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

from feature_repo.contracts.embeddings import EMBEDDING_GROUPS
from feature_repo.contracts.features import declared
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import MOVIELENS, write_schema
from pipelines.feast_store.errors import RegistryError
from pipelines.feast_store.registry import check_registered
from pipelines.feast_store.store import open_store, registry_path
from pipelines.jobs import registry
from pipelines.settings import Settings
from tests import feast_world as world
from tests.movielens import ITEM_ACTIVITY
from tests.postgres_server import is_installed, postgres_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not is_installed(), reason="this machine has no PostgreSQL server (initdb, postgres)")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres_server() as url:
        yield url


def test_namespaces_share_a_database_and_nothing_else(url: str, tmp_path: Path) -> None:
    settings = Settings(state=tmp_path, feast_registry_url=url)
    events = world.make_events(users=5, items=5, events=20)
    first = world.write_world(tmp_path, events, name="first-set")
    second = Namespace(tmp_path, "second-set")
    write_schema(second, MOVIELENS)
    done = registry.run(settings, first)
    assert registry.run(settings, first) == done
    assert not registry_path(first).exists()
    store = open_store(settings, first)
    assert {view.name for view in store.list_feature_views()} == {
        group.view_name for group in (*declared(MOVIELENS).groups, *EMBEDDING_GROUPS)
    }
    with pytest.raises(RegistryError, match="run 'python -m pipelines registry'"):
        check_registered(open_store(settings, second), second)
    registry.run(settings, second)
    check_registered(open_store(settings, second), second)
    check_registered(open_store(settings, first), first)
    labels = pd.DataFrame({"item_id": ["i1", "i-unseen"], "event_timestamp": pd.Timestamp(world.CUTOFF)})
    features = [f"{ITEM_ACTIVITY.view_name}:{ITEM_ACTIVITY.features[0].name}"]
    (known, unknown) = store.get_historical_features(labels, features).to_arrow().to_pylist()
    name = ITEM_ACTIVITY.features[0].name
    assert known[name] == sum(event["item_id"] == "i1" for event in events)
    assert unknown[name] is None
