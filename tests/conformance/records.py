"""The recorded cases and scenarios: replies of TensorFlow ModelServer 2.20, none of them typed by hand.

A case is one request and its reply; its `compare` says how strictly (see compare.py). A scenario is a server's life in
steps (see scenario.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CASES = Path(__file__).with_name("cases.jsonl")
SCENARIOS = Path(__file__).with_name("scenarios.jsonl")


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
