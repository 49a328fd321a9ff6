"""A container's health check: `python -m infra.docker.answers URL [COMPONENT]` ends with 0 if the page answers 200.

With COMPONENT the page is Airflow's monitor, and that component has to call itself healthy there. Standard library
only, for it runs every few seconds.
"""

from __future__ import annotations

import json
import sys
from http import HTTPStatus
from http.client import HTTPException
from urllib.request import ProxyHandler, build_opener

_TIMEOUT_S = 5.0


def ailment(url: str, component: str = "") -> str | None:
    """Return None if `url` answers 200 (and `component` is healthy there), else what is wrong."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=_TIMEOUT_S) as response:
            status, body = response.status, response.read()
        if status != HTTPStatus.OK:
            return f"{url}: expected HTTP status 200, received {status}"
        if not component:
            return None
        state = (json.loads(body).get(component) or {}).get("status")
    except (OSError, HTTPException, ValueError, AttributeError) as error:
        return f"{url}: {error}"
    return None if state == "healthy" else f"{url}: expected {component} to be healthy, it is {state}"


def main(arguments: list[str]) -> int:
    """Check once; the container engine keeps what is said."""
    if not 1 <= len(arguments) <= 2:  # noqa: PLR2004 - URL and component
        sys.stderr.write("usage: python -m infra.docker.answers URL [COMPONENT]\n")
        return 2
    wrong = ailment(*arguments)
    if wrong:
        sys.stderr.write(f"{wrong}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
