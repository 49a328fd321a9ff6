"""Which layout a source is in, by the names of its files, and which namespace it goes by."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pipelines.errors import SourceError
from pipelines.sources.archive import SourceFile, source_files
from pipelines.sources.movielens_1m import MovieLens1M
from pipelines.sources.movielens_100k import MovieLens100K
from pipelines.sources.movielens_csv import MovieLensCsv
from pipelines.sources.recbole import RecBole

if TYPE_CHECKING:
    from pipelines.sources.layout import FileFormat, Layout

LAYOUTS: tuple[Layout, ...] = (MovieLens100K(), MovieLensCsv(), MovieLens1M(), RecBole())
_NAMES_SHOWN = 12
_NAMESPACE_LENGTH = 48


@dataclass(frozen=True, slots=True)
class Source:
    """A source whose layout is known."""

    layout: Layout
    events: SourceFile
    items: SourceFile
    users: SourceFile | None


def open_source(path: Path) -> Source:
    """Find the layout of a folder or zip; the files may lie in a folder inside it.

    Raises:
        SourceError: no layout fits (the message lists what was found and what is expected), or more than one does.
    """
    files = source_files(path)
    fitting = [source for layout in LAYOUTS for source in _fit(layout, files)]
    if len(fitting) == 1:
        return fitting[0]
    found = ", ".join(file.name for file in files[:_NAMES_SHOWN]) or "nothing"
    more = f" and {len(files) - _NAMES_SHOWN} more" if len(files) > _NAMES_SHOWN else ""
    if fitting:
        several = "; ".join(f"{source.layout.name}: {source.events.name}" for source in fitting)
        msg = f"source {path}: expected one data set, found {len(fitting)} ({several}); name the folder of one of them"
        raise SourceError(msg)
    expected = "; ".join(f"{layout.name}: {', '.join(item.suffix for item in _formats(layout))}" for layout in LAYOUTS)
    msg = f"source {path}: no layout fits. Found: {found}{more}. Expected the files of one of: {expected}"
    raise SourceError(msg)


def namespace_of(path: Path) -> str:
    """Derive a namespace from the name of a folder or zip: `ML_Latest Small.zip` → `ml-latest-small`.

    Raises:
        SourceError: the name holds no Latin letter or digit.
    """
    path = path.absolute()
    name = path.stem if path.suffix.lower() == ".zip" else path.name
    namespace = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_NAMESPACE_LENGTH].strip("-")
    if not namespace:
        msg = f"source {path}: expected a name with Latin letters or digits, to derive a namespace from; rename it"
        raise SourceError(msg)
    return namespace


def _formats(layout: Layout) -> list[FileFormat]:
    return [item for item in (layout.events, layout.items, layout.users) if item is not None]


def _fit(layout: Layout, files: list[SourceFile]) -> list[Source]:
    """Return one source for every folder that has all files of the layout."""
    by_folder: dict[PurePosixPath, list[SourceFile]] = {}
    for file in files:
        by_folder.setdefault(PurePosixPath(file.name).parent, []).append(file)
    sources = []
    for members in by_folder.values():
        events, items = _member(layout.events, members), _member(layout.items, members)
        users = _member(layout.users, members) if layout.users else None
        if events and items and (users or layout.users is None):
            sources.append(Source(layout, events, items, users))
    return sources


def _member(form: FileFormat, members: list[SourceFile]) -> SourceFile | None:
    """Return the file of a format: by its whole name, or by its ending where the format names only that."""
    by_ending = form.suffix.startswith(".")
    for file in members:
        name = PurePosixPath(file.name).name
        if name == form.suffix or (by_ending and name.endswith(form.suffix)):
            return file
    return None
