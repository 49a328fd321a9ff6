"""Which files the names and globs of a mapping mean: relative to the source, as Spark and Python's glob read them."""

from __future__ import annotations

import logging
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.sources.archive import SourceFile

ANY_FOLDERS = "**"
"""Any number of folders, also none."""
_log = logging.getLogger(__name__)


class FileNames:
    """The files of a source, to be asked for by name.

    A folder that holds all of them, as the top one of many zips, may be left out of a name. Hidden files, and what lies
    in folders that are hidden or begin with `_`, are meant only where the name says so: such hold copies, and what a
    job that died has left.
    """

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self.files = files
        levels = zip(*(_parts(file.name)[:-1] for file in visible(files)), strict=False)
        above = len(list(takewhile(lambda level: len(set(level)) == 1, levels)))
        self._names = [(file, _names(file, above)) for file in files]

    def fitting(self, pattern: str) -> list[SourceFile]:
        """Return the files of a pattern: those of that very name, such as `events[1].csv`, else those that it finds.

        Where it finds none at its place it looks into all folders: engines write a table as `day=1/`, `day=2/`.
        """
        wanted = _parts(pattern)
        named = [file for file, names in self._names if wanted in names]
        return named or self._found(wanted) or self._found((ANY_FOLDERS, *wanted))

    def below(self, pattern: str) -> list[SourceFile]:
        """Return the files that a pattern would find if its last name were that of a file in any folder below."""
        return self._found(_parts(below_too(pattern)))

    def tell_left_out(self, patterns: Sequence[str], found: Sequence[SourceFile]) -> None:
        """Warn of files that only their folders keep from being found; `found` are all that a mapping means."""
        known = {file.name for file in found}
        for pattern in patterns:
            if below := [file for file in self.below(pattern) if file.name not in known]:
                _log.warning(
                    "%r means files of its own folder: left out are %d in folders below it, such as %r; "
                    "write %r where they are meant",
                    pattern,
                    len(below),
                    below[0].name,
                    below_too(pattern),
                )

    def _found(self, wanted: tuple[str, ...]) -> list[SourceFile]:
        return [file for file, names in self._names if any(_fits(parts, wanted) for parts in names)]


def visible(files: Sequence[SourceFile]) -> Sequence[SourceFile]:
    """Return the files that are not hidden and lie in no folder that is; all of them where that leaves none."""
    return [file for file in files if not _is_hidden(_parts(file.name))] or files


def _names(file: SourceFile, above: int) -> list[tuple[str, ...]]:
    """Return what a file may be called, in parts: with and without `.gz`, and the folders above all files."""
    names = {file.name, file.plain_name}
    return [_parts(name)[skipped:] for name in names for skipped in range(above + 1)]


def below_too(pattern: str) -> str:
    """Return the pattern that finds the same names in folders below, too."""
    parts = _parts(pattern)
    return pattern if ANY_FOLDERS in parts else "/".join((*parts[:-1], ANY_FOLDERS, *parts[-1:]))


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts


def _fits(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    if not wanted or not parts:
        return not wanted and not parts
    first, rest = wanted[0], wanted[1:]
    if first != ANY_FOLDERS:
        return _is_meant(parts[0], first, is_folder=len(parts) > 1) and _fits(parts[1:], rest)
    return _fits(parts, rest or ("*",)) or (
        len(parts) > 1 and not _is_hidden_folder(parts[0]) and _fits(parts[1:], wanted)
    )


def _is_meant(name: str, wanted: str, *, is_folder: bool) -> bool:
    is_hidden = _is_hidden_folder(name) if is_folder else name.startswith(".")
    return fnmatchcase(name, wanted) and (not is_hidden or wanted.startswith(name[0]))


def _is_hidden_folder(name: str) -> bool:
    """Tell whether Spark passes over a folder; `_day=1` is one of rows."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _is_hidden(parts: tuple[str, ...]) -> bool:
    return parts[-1].startswith(".") or any(map(_is_hidden_folder, parts[:-1]))
