"""Feast without the type checks that typeguard writes into its classes: they cost every job 4 s when it is imported."""

from __future__ import annotations

from contextlib import suppress
from typing import Any


def import_without_type_checks() -> None:
    """Let what is imported from now on keep its functions as they are written, though typeguard decorates them.

    Types are checked by mypy here, before anything runs.
    """
    with suppress(ImportError):  # it is Feast's dependency, not this project's
        import typeguard  # noqa: PLC0415 - as above

        typeguard.typechecked = _unchanged


def _unchanged(target: Any = None, **_: object) -> Any:  # noqa: ANN401 - whatever is decorated, with or without brackets
    return _unchanged if target is None else target
