"""Feast's objects are the contracts, and what the `feast` command reads is what the jobs build in process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from feast.repo_config import load_repo_config
from feast.types import from_feast_to_pyarrow_type

from feature_repo.contracts.embeddings import EMBEDDING_GROUPS
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import MOVIELENS, write_schema
from feature_repo.services import feast_service, service_name
from feature_repo.views import feast_views
from pipelines.feast_store.store import open_store, repo_config
from pipelines.io.arrow import arrow_type
from pipelines.jobs import registry
from pipelines.settings import Settings
from tests.movielens import FEATURE_GROUPS, FEATURES, RANKING_FEATURES

if TYPE_CHECKING:
    from feature_repo.contracts.features import FeatureGroup

REPOSITORY = Path(__file__).resolve().parents[2]
FEATURE_REPO = REPOSITORY / "feature_repo"


def namespace(state: Path) -> Namespace:
    place = Namespace(state, "ml-100k")
    write_schema(place, MOVIELENS)
    return place


@pytest.mark.parametrize("group", [*FEATURE_GROUPS, *EMBEDDING_GROUPS], ids=lambda group: group.name)
def test_a_view_is_its_group(group: FeatureGroup, tmp_path: Path) -> None:
    view = feast_views(namespace(tmp_path))[group.name]
    assert view.name == group.view_name
    assert view.join_keys == [group.entity.name]
    assert [field.name for field in view.features] == [column.name for column in group.features]
    for field, column in zip(view.features, group.features, strict=True):
        kind, expected = from_feast_to_pyarrow_type(field.dtype), arrow_type(column)
        assert kind == expected if not column.length else kind.value_type == expected.value_type
    assert view.ttl is not None
    assert view.ttl.days == group.ttl_days


def test_the_service_has_the_contract_s_features_in_order(tmp_path: Path) -> None:
    service = feast_service(RANKING_FEATURES, feast_views(namespace(tmp_path)))
    features = [feature.name for view in service.feature_view_projections for feature in view.features]
    assert features == [column.name for column in RANKING_FEATURES.columns]
    assert service.name == f"ranking_{RANKING_FEATURES.hash}"


def test_feast_imports_definitions_and_nothing_else() -> None:
    lines = (FEATURE_REPO / ".feastignore").read_text().splitlines()
    ignored = {line for line in lines if not line.startswith("#")}
    modules = {path.name for path in FEATURE_REPO.glob("*.py")} - {"__init__.py"}
    assert modules - ignored == {"definitions.py"}
    assert "contracts" in ignored


def feast_environment(settings: Settings, namespace: str) -> dict[str, str]:
    """Return the environment that a person's shell has after `eval` of what the command prints."""
    given = {**os.environ, "KESTREL_STATE": str(settings.state), "KESTREL_REDIS_URL": settings.redis_url}
    script = f'eval "$({sys.executable} -m pipelines.feast_store --namespace {namespace})" && env -0'
    printed = subprocess.run(["/bin/sh", "-c", script], env=given, cwd=REPOSITORY, capture_output=True, check=True)
    return dict(pair.split("=", 1) for pair in printed.stdout.decode().split("\0") if pair)


def test_the_command_line_sees_what_the_jobs_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`feast apply` by a person registers the same, and keeps a view that the code no longer declares."""
    settings = Settings(state=tmp_path, redis_url="redis://:it's%20%22secret%22@127.0.0.1:1/3")
    place = namespace(tmp_path)
    registry.run(settings, place)
    store = open_store(settings, place)
    old = store.get_feature_view(FEATURE_GROUPS[0].view_name)
    old.name = f"{FEATURE_GROUPS[0].name}_0ldha5h0"
    store.apply([old])
    environment = feast_environment(settings, place.name)
    feast = Path(sys.executable).with_name("feast")
    command = [str(feast), "-c", "feature_repo", "apply"]
    applied = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, check=False)
    assert applied.returncode == 0, applied.stderr.decode()
    after = open_store(settings, place)
    declared = {group.view_name for group in (*FEATURE_GROUPS, *EMBEDDING_GROUPS)}
    assert {view.name for view in after.list_feature_views()} == {*declared, old.name}
    services = {service_name(service) for service in FEATURES.services}
    assert {service.name for service in after.list_feature_services()} == services
    for name in ("KESTREL_FEAST_PROJECT", "KESTREL_FEAST_REGISTRY", "KESTREL_FEAST_OFFLINE", "KESTREL_FEAST_REDIS"):
        monkeypatch.setenv(name, environment[name])
    read = load_repo_config(FEATURE_REPO, FEATURE_REPO / "feature_store.yaml")
    built = repo_config(settings, place)
    how_jobs_connect = {"sqlalchemy_config_kwargs"}  # a class, which YAML cannot say
    assert read.registry.model_dump(exclude=how_jobs_connect) == built.registry.model_dump(exclude=how_jobs_connect)
    for part in ("project", "provider", "offline_store", "online_store", "materialization_config", "batch_engine"):
        assert getattr(read, part) == getattr(built, part), part
    assert read.entity_key_serialization_version == built.entity_key_serialization_version == 3
