"""`make check`: style, types, imports and the lock, then the unit tests that a change can reach, within a minute.

    files that differ from main ──▶ their modules ──▶ whatever imports these ──▶ test files, the nearest first

Nothing is started. What does not fit into the time is left to `make test-unit`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import grimp

from feature_repo.contracts.places import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PACKAGES = ("feature_repo", "pipelines", "models", "serving", "dags", "infra", "tests")
FOLDERS = ("tests/unit", "tests/architecture", "tests/contract", "tests/dags")
"""Of the tests that start nothing."""
_LINT = "tests/architecture/test_lint.py"
"""Does what STEPS have done."""
STEPS = {
    "format": ("ruff", "format", "--check"),
    "lint": ("ruff", "check"),
    "types": ("mypy",),
    "imports": ("lint-imports",),
    "lock": ("uv", "lock", "--check"),
}
BUDGET_S = 50.0
"""Seconds until no further test begins."""
UNTIL = "KESTREL_TESTS_UNTIL"
"""The environment variable that tells tests when no further one begins: seconds since the epoch."""
_EVERYTHING = {"pyproject.toml", "uv.lock", "tests/conftest.py"}
"""Files that all tests depend on."""


def check() -> int:
    """Run all steps, then the tests; return the status to exit with."""
    began = time.time()
    with ThreadPoolExecutor(max_workers=2) as pool:
        done = dict(zip(STEPS, pool.map(_run, STEPS.values()), strict=True))
    failed = {name: step for name, step in done.items() if step.returncode}
    for name, step in done.items():
        _say(f"{'✘' if step.returncode else '✔'} {name}")
    for step in failed.values():
        _say(step.stdout + step.stderr)
    if failed:
        _say("`make fix` mends most of style; tests are run when the rest is right")
        return 1
    changed = changed_files()
    files = reached(changed)
    if not files:
        _say("No unit test depends on what differs from main" if changed else "Nothing differs from main")
        return 0
    _say(f"{len(changed)} files differ from main, {len(files)} files of tests depend on them: the nearest first")
    environment = {**os.environ, UNTIL: str(began + BUDGET_S)}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not zoo", "--no-header", "--maxfail", "5", *files],
        cwd=REPOSITORY,
        env=environment,
        check=False,
    ).returncode


def changed_files() -> list[str]:
    """Return the files that differ from main, or are new; on main itself, those that are not committed."""
    base = _git("merge-base", "main", "HEAD") or ["HEAD"]
    return sorted({*_git("diff", "--name-only", base[0]), *_git("ls-files", "--others", "--exclude-standard")})


def reached(changed: Iterable[str]) -> list[str]:
    """Return the files of unit tests that depend on changed files, by how many imports lie between, then by name."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    importers = {module: graph.find_modules_that_directly_import(module) for module in graph.modules}
    own = {module: module.replace(".", "/") + ".py" for module in graph.modules}
    tests = {module: path for module, path in own.items() if path.startswith(FOLDERS) and (REPOSITORY / path).is_file()}
    tests = {module: path for module, path in tests.items() if _is_test(path)}
    files = list(changed)
    if _EVERYTHING.intersection(files):
        return sorted(tests.values())
    found = distances(modules_of(files, graph.modules), importers)
    return [path for _, path in sorted((found[module], path) for module, path in tests.items() if module in found)]


def modules_of(files: Iterable[str], modules: Iterable[str]) -> set[str]:
    """Return the modules of changed files; of a file that is none, the modules beside it, which may well read it."""
    there = set(modules)
    found = set()
    for file in files:
        path = PurePosixPath(file)
        name = ".".join((path.parent if path.name == "__init__.py" else path.with_suffix("")).parts)
        if path.suffix == ".py":
            found |= {name} & there
        else:
            beside = ".".join(path.parent.parts)
            found |= {module for module in there if module.rpartition(".")[0] == beside}
    return found


def distances(changed: Iterable[str], importers: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Return the modules that a change can reach, and how many imports lie between."""
    found = dict.fromkeys(changed, 0)
    waiting = list(found)
    for module in waiting:
        for importer in sorted(importers.get(module, ())):
            if importer not in found:
                found[importer] = found[module] + 1
                waiting.append(importer)
    return found


def _is_test(path: str) -> bool:
    return Path(path).name.startswith("test_") and path != _LINT


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    own = Path(sys.executable).parent / command[0]
    program = str(own) if own.is_file() else command[0]
    return subprocess.run([program, *command[1:]], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)  # noqa: S607 - the developer's git
    return done.stdout.splitlines() if not done.returncode else []


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(check())
