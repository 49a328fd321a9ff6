"""Prints the environment in which the `feast` command sees a namespace, for a shell's `eval`."""

from __future__ import annotations

import json
import shlex

import typer

from feature_repo.contracts.intervals import feast_project
from feature_repo.contracts.places import Namespace
from feature_repo.options import NamespaceName  # noqa: TC001 - typer reads the annotations
from pipelines.settings import load_settings


def main(namespace: NamespaceName) -> None:
    """Print `export NAME=value` lines for a shell; then run `feast -c feature_repo apply`, `ui` and the like."""
    from pipelines.feast_store.store import connection_string, offline_store, registry_url  # noqa: PLC0415 - Feast takes seconds

    settings = load_settings()
    place = Namespace(settings.state, namespace)
    place.feast.mkdir(parents=True, exist_ok=True)
    exports = {
        "KESTREL_STATE": str(settings.state),
        "KESTREL_NAMESPACE": namespace,
        "KESTREL_FEAST_PROJECT": feast_project(namespace),
        "KESTREL_FEAST_REGISTRY": json.dumps(registry_url(settings, place)),  # quoted for YAML
        "KESTREL_FEAST_OFFLINE": str(offline_store(settings)["type"]),
        "KESTREL_FEAST_REDIS": json.dumps(connection_string(settings.redis_url)),  # as above
        "PYTHONPATH": ".",
    }
    for name, value in exports.items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    typer.run(main)
