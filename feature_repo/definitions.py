"""What the `feast` command sees: entities, views and services of the namespace that KESTREL_NAMESPACE names.

Views that are registered and no longer declared are taken along from the registry: `feast apply` removes whatever it
does not see, and the serving champion may still read them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from feast.infra.registry.sql import SqlRegistry, SqlRegistryConfig

from feature_repo.contracts.intervals import feast_project
from feature_repo.contracts.places import Namespace
from feature_repo.entities import ENTITIES
from feature_repo.services import feast_service, services
from feature_repo.views import feast_views

if TYPE_CHECKING:
    from feast import FeatureService, FeatureView


def _setting(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        msg = f'{name} is not set: run eval "$(python -m pipelines.feast_store --namespace NAME)" first'
        raise RuntimeError(msg) from None


def _registered(project: str, registry: str) -> tuple[list[FeatureView], list[FeatureService]]:
    store = SqlRegistry(SqlRegistryConfig(path=json.loads(registry)), project, None)
    return store.list_feature_views(project), store.list_feature_services(project)


_NAMESPACE = Namespace(Path(_setting("KESTREL_STATE")), _setting("KESTREL_NAMESPACE"))
_VIEWS = feast_views(_NAMESPACE)
_DECLARED = [
    *ENTITIES.values(),
    *_VIEWS.values(),
    *(feast_service(service, _VIEWS) for service in services(_NAMESPACE)),
]
_OLD_VIEWS, _OLD_SERVICES = _registered(feast_project(_NAMESPACE.name), _setting("KESTREL_FEAST_REGISTRY"))

# Feast collects a module's attributes: each object needs a name of its own.
_NAMES = {declared.name for declared in _DECLARED}
globals().update({f"declared_{declared.name}": declared for declared in _DECLARED})
globals().update({f"kept_{kept.name}": kept for kept in (*_OLD_VIEWS, *_OLD_SERVICES) if kept.name not in _NAMES})
