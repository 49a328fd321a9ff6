"""Which layout a source is in, by the names of its files, and which namespace it goes by."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pipelines.errors import SourceError
from pipelines.sources.archive import source_files
from pipelines.sources.file_names import visible
from pipelines.sources.mapped import open_mapped
from pipelines.sources.mapping_file import read_mapping, shipped
from pipelines.sources.movielens_1m import MovieLens1M
from pipelines.sources.movielens_100k import MovieLens100K
from pipelines.sources.movielens_csv import MovieLensCsv
from pipelines.sources.published import PublishedSource
from pipelines.sources.recbole import RecBole

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.sources.adapter import Source
    from pipelines.sources.archive import SourceFile
    from pipelines.sources.layout import FileFormat, Layout

LAYOUTS: tuple[Layout, ...] = (MovieLens100K(), MovieLensCsv(), MovieLens1M(), RecBole())
_NAMES_SHOWN = 12
_NAMESPACE_LENGTH = 48
_ENDINGS = frozenset({".zip", ".gz", ".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet"})


def open_source(path: Path, mapping: Path | None = None, *, is_part: bool = False) -> Source:
    """Open a folder, a zip or a file: as `mapping` says, else in the published layout that its files' names tell.

    The files of a layout may lie in a folder inside it. A part may leave out all of them but one.

    Raises:
        SourceError: no layout fits (the message lists what was found and what is expected), or more than one does.
    """
    files = source_files(path)
    if mapping is not None:
        read, schema = read_mapping(mapping)
        return open_mapped(read, schema, files, is_part=is_part)
    fitting = [source for layout in LAYOUTS for source in _fit(layout, files, is_part=is_part)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        several = "; ".join(f"{source.layout.name}: {source.any_file.name}" for source in fitting)
        msg = f"source {path}: expected one data set, found {len(fitting)} ({several}); name the folder of one of them"
        raise SourceError(msg)
    found = ", ".join(file.name for file in files[:_NAMES_SHOWN]) or "nothing"
    more = f" and {len(files) - _NAMES_SHOWN} more" if len(files) > _NAMES_SHOWN else ""
    expected = "; ".join(f"{layout.name}: {', '.join(item.suffix for item in _formats(layout))}" for layout in LAYOUTS)
    near = "".join(
        f" {layout.name} lacks {', '.join(lacking)}." for layout in LAYOUTS if (lacking := _lacking(layout, files))
    )
    msg = (
        f"source {path}: no layout fits. Found: {found}{more}. Expected the files of one of: {expected}.{near} "
        f"For any other data, name a mapping: one of {', '.join(shipped())}, or a YAML of your own "
        "(docs/bring-your-own-events.md)"
    )
    raise SourceError(msg)


def namespace_of(path: Path) -> str:
    """Derive a namespace from the name of a folder, zip or file: `ML_Latest Small.zip` → `ml-latest-small`.

    Raises:
        SourceError: the name holds no Latin letter or digit.
    """
    path = path.absolute()
    name = path.name
    while PurePosixPath(name).suffix.lower() in _ENDINGS:
        name = PurePosixPath(name).stem
    namespace = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_NAMESPACE_LENGTH].strip("-")
    if not namespace:
        msg = f"source {path}: expected a name with Latin letters or digits, to derive a namespace from; rename it"
        raise SourceError(msg)
    return namespace


def _formats(layout: Layout) -> list[FileFormat]:
    return [item for item in (layout.events, layout.items, layout.users) if item is not None]


def _lacking(layout: Layout, files: list[SourceFile]) -> list[str]:
    """Return which files of a layout are not there; none where its events are not there either."""
    if not _member(layout.events, files):
        return []
    return [item.suffix for item in _formats(layout) if not _member(item, files)]


def _fit(layout: Layout, files: list[SourceFile], *, is_part: bool) -> list[PublishedSource]:
    """Return one source for every folder that has all files of the layout; a part needs one of them.

    Where a layout names no more than endings, one of its files alone may be of another layout, and events are needed.
    """
    by_folder: dict[PurePosixPath, list[SourceFile]] = {}
    for file in visible(files):
        by_folder.setdefault(PurePosixPath(file.name).parent, []).append(file)
    sources = []
    for members in by_folder.values():
        events, items = _member(layout.events, members), _member(layout.items, members)
        users = _member(layout.users, members) if layout.users else None
        is_whole = events and items and (users or layout.users is None)
        names_whole_files = not layout.items.suffix.startswith(".")
        if is_whole or (is_part and (events or (names_whole_files and (items or users)))):
            sources.append(PublishedSource(layout, events, items, users, is_part=is_part))
    return sources


def _member(form: FileFormat, members: list[SourceFile]) -> SourceFile | None:
    """Return the file of a format: by its whole name, or by its ending where the format names only that."""
    by_ending = form.suffix.startswith(".")
    for file in members:
        name = PurePosixPath(file.name).name
        if name == form.suffix or (by_ending and name.endswith(form.suffix)):
            return file
    return None
