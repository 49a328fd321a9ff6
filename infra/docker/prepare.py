"""What has to be there before the containers start: `python -m infra.docker.prepare {environment,state,airflow,pool}`.

environment   writes infra/.env with random passwords, on the machine that starts the containers; needs Python only
state         models.config without a model, for tensorflow_model_server does not start without the file
airflow       the file that Airflow's simple authentication reads its password from
pool          the pool that the DAGs' heavy tasks run in, in Airflow's database

Each leaves alone what is there already.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from pathlib import Path

from feature_repo.contracts.orchestration import POOL_COMMAND
from feature_repo.contracts.places import Serving, state_folder
from feature_repo.contracts.publishing import write_private

INFRA = Path(__file__).resolve().parents[1]
EXAMPLE = INFRA / ".env.example"
ENVIRONMENT = INFRA / ".env"


def random_values() -> dict[str, str]:
    """Return a value for each secret of `.env.example`; all of them may stand in a URL."""
    return {
        "REDIS_PASSWORD": secrets.token_urlsafe(24),
        "POSTGRES_PASSWORD": secrets.token_urlsafe(24),
        "KESTREL_AIRFLOW_PASSWORD": secrets.token_urlsafe(18),
        "AIRFLOW_FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW_JWT_SECRET": secrets.token_urlsafe(96),
        "AIRFLOW_SECRET_KEY": secrets.token_urlsafe(48),
        "GRAFANA_PASSWORD": secrets.token_urlsafe(18),
    }


def filled(example: str, values: dict[str, str]) -> str:
    """Return the text of `.env.example` with a value for every name that has none."""
    lines = []
    for line in example.splitlines():
        name, equals, value = line.partition("=")
        empty = equals and not value and not line.startswith("#")
        lines.append(f"{name}={values[name]}" if empty else line)
    return "\n".join(lines) + "\n"


def environment() -> None:
    """Write `infra/.env`, readable by its owner only."""
    if ENVIRONMENT.exists():
        return
    text = filled(EXAMPLE.read_text(encoding="utf-8"), random_values())
    write_private(ENVIRONMENT, text)


def state() -> None:
    """Write a models.config that names no model, in the rollout's own way."""
    from serving.rollout.models_config import read_models_config, write_models_config  # noqa: PLC0415 - protobuf

    path = Serving(state_folder()).models_config
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_models_config(path, read_models_config(path))


def airflow() -> None:
    """Write the password file that AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE names."""
    path = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    passwords = {os.environ["KESTREL_AIRFLOW_USER"]: os.environ["KESTREL_AIRFLOW_PASSWORD"]}
    text = json.dumps(passwords) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_private(path, text)


def pool() -> None:
    """Make the pool; Airflow's command takes this process's place."""
    os.execv(sys.executable, [sys.executable, *POOL_COMMAND])  # noqa: S606 - no shell is wanted


STEPS = {"environment": environment, "state": state, "airflow": airflow, "pool": pool}


def main(arguments: list[str]) -> int:
    """Run one preparation."""
    if len(arguments) != 1 or arguments[0] not in STEPS:
        sys.stderr.write(f"usage: python -m infra.docker.prepare {{{','.join(STEPS)}}}\n")
        return 2
    STEPS[arguments[0]]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
