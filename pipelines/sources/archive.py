"""The files of a source, whether it is a folder or a zip. A zip is read as a stream and never unpacked."""

from __future__ import annotations

import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from pipelines.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source."""

    name: str
    """Relative to the source, with slashes."""
    size: int
    """Bytes, unpacked."""
    path: Path
    """The file itself, or the zip that holds it."""
    zipped: bool

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Give the file's bytes as a stream; SourceError where a zip turns out to be damaged on the way."""
        if not self.zipped:
            with self.path.open("rb") as stream:
                yield stream
            return
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.name) as stream:
                yield stream
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            msg = f"{self.path}: {self.name}: expected a whole zip member, received damaged data ({error}); {_AGAIN}"
            raise SourceError(msg) from error
        except RuntimeError as error:
            msg = (
                f"{self.path}: {self.name}: expected a zip without a password ({error}); unpack it and name the folder"
            )
            raise SourceError(msg) from error


_AGAIN = "download it again and compare its checksum"


def source_files(source: Path) -> list[SourceFile]:
    """List the files of a folder or zip. SourceError if it is neither, is damaged, or names paths outside itself."""
    if source.is_dir():
        files = (path for path in sorted(source.rglob("*")) if path.is_file())
        return [
            SourceFile(path.relative_to(source).as_posix(), path.stat().st_size, path, zipped=False) for path in files
        ]
    if not source.exists():
        msg = f"source {source}: expected a folder or a zip, found nothing there; check the path"
        raise SourceError(msg)
    if source.suffix.lower() != ".zip":
        msg = f"source {source}: expected a folder or a .zip, received a file; name the folder that it lies in"
        raise SourceError(msg)
    return _zip_members(source)


def _zip_members(source: Path) -> list[SourceFile]:
    if source.stat().st_size == 0:
        msg = f"source {source}: expected a zip, received an empty file; {_AGAIN}"
        raise SourceError(msg)
    try:
        with zipfile.ZipFile(source) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except zipfile.BadZipFile as error:
        msg = f"source {source}: expected a whole zip, received a truncated or damaged one ({error}); {_AGAIN}"
        raise SourceError(msg) from error
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
            msg = (
                f"source {source}: expected paths inside the zip, received member {member.filename!r}, which leaves it"
            )
            raise SourceError(msg)
    members.sort(key=lambda member: member.filename)
    return [SourceFile(member.filename, member.file_size, source, zipped=True) for member in members]
