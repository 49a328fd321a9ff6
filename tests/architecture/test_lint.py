"""What `make lint` checks holds: who imports whom, style, and types."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command", [("lint-imports",), ("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)], ids=" ".join
)
def test_lint(command):
    program, *arguments = command
    done = subprocess.run(
        [str(PROGRAMS / program), *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
