"""What the code declares, as Feast's registry holds it."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from feast.errors import FeatureServiceNotFoundException, FeatureViewNotFoundException

from feature_repo.entities import ENTITIES
from feature_repo.services import feast_service, service_name, services
from feature_repo.views import feast_views
from pipelines.feast_store.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feast import FeatureService, FeatureStore

    from feature_repo.contracts.features import FeatureService as Declaration
    from feature_repo.contracts.places import Namespace


@contextlib.contextmanager
def quiet_output() -> Iterator[None]:
    """Send what Feast prints to standard error: a job's standard output is for its result."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def apply_declarations(store: FeatureStore, place: Namespace) -> None:
    """Bring entities, views and services into the registry. What is there and no longer declared stays.

    An older view may be what the serving champion reads, and an older service what a training set was made from.
    """
    views = feast_views(place)
    declared = [feast_service(service, views) for service in services(place)]
    with quiet_output():
        store.apply([*ENTITIES.values(), *views.values(), *declared])


def check_registered(store: FeatureStore, place: Namespace) -> None:
    """RegistryError unless every declared view is registered, over the files where this namespace has them."""
    for view in feast_views(place).values():
        try:
            registered = store.get_feature_view(view.name)
        except FeatureViewNotFoundException as error:
            raise RegistryError(_not_registered(store, f"feature view {view.name}")) from error
        if registered.batch_source != view.batch_source:
            found = getattr(registered.batch_source, "path", registered.batch_source)
            msg = f"feature view {view.name} reads {found}, expected {view.batch_source.path}"
            raise RegistryError(msg + "; run 'python -m pipelines registry'")


def registered_service(store: FeatureStore, service: Declaration) -> FeatureService:
    """Return a declared service from the registry; RegistryError if it is not there."""
    try:
        return store.get_feature_service(service_name(service))
    except FeatureServiceNotFoundException as error:
        raise RegistryError(_not_registered(store, f"feature service {service_name(service)}")) from error


def _not_registered(store: FeatureStore, what: str) -> str:
    known = sorted(view.name for view in store.list_feature_views())
    return (
        f"{what}: not in the Feast registry of project {store.project}, which has the views {known}; "
        "run 'python -m pipelines registry' for this namespace first"
    )
