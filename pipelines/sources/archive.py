"""The files of a source: of a folder or a zip, or a single one. Zip and gz are read as streams and never unpacked."""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, cast

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

    @property
    def plain_name(self) -> str:
        """Its name without `.gz`."""
        return self.name[: -len(_GZ)] if self.is_gz else self.name

    @property
    def is_gz(self) -> bool:
        """Whether its name says that it is packed with gzip."""
        return self.name.lower().endswith(_GZ)

    @property
    def is_packed(self) -> bool:
        """Whether its bytes are others than those on the disk."""
        return self.zipped or self.is_gz

    def head(self, size: int = 512) -> bytes:
        """Return its first bytes, unpacked."""
        with self.open() as stream:
            return stream.read(size)

    def remedy_without(self, column: str) -> str:
        """Return what to do about a column that the file does not have; a folder `dt=2023-11-14` gives it none."""
        folders = (*self.path.parts[:-1], *PurePosixPath(self.name).parts[:-1])
        named = [folder for folder in folders if folder.startswith(f"{column}=")]
        if not named:
            return "correct the mapping"
        return f"the folder {named[-1]!r} is a path and no column: write the column into the file"

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Give the file's bytes as a stream, unpacked; SourceError where a zip or gz turns out to be damaged."""
        with self._stored() as stored:
            if not self.is_gz:
                yield stored
                return
            try:
                with gzip.open(stored) as stream:
                    yield cast("IO[bytes]", stream)
            except (gzip.BadGzipFile, zlib.error, EOFError) as error:
                is_plain = isinstance(error, gzip.BadGzipFile) and "Not a gzipped file" in str(error)
                remedy = (_FOLLOWED if self._is_gzip() else _PLAIN) if is_plain else _AGAIN
                msg = f"{self.path}: {self.name}: expected a whole gz, received other data ({error}); {remedy}"
                raise SourceError(msg) from error

    def _is_gzip(self) -> bool:
        """Tell whether it begins as a gz does."""
        with self._stored() as stored:
            return stored.read(2) == b"\x1f\x8b"

    @contextmanager
    def _stored(self) -> Iterator[IO[bytes]]:
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
        except NotImplementedError as error:
            msg = (
                f"{self.path}: {self.name}: expected a zip packed by Deflate, bzip2 or LZMA, received another way "
                f"({error}), such as Deflate64 of Windows; unpack it and name the folder"
            )
            raise SourceError(msg) from error
        except RuntimeError as error:
            msg = (
                f"{self.path}: {self.name}: expected a zip without a password ({error}); unpack it and name the folder"
            )
            raise SourceError(msg) from error


_GZ = ".gz"
_DRIVE = re.compile("[A-Za-z]:")
"""A disk of Windows; a name may well begin with a time."""
_PLAIN = "is it not packed at all? Leave .gz out of its name"
_FOLLOWED = "other bytes follow the packed ones: unpack it, which leaves them out, and pack it anew"
_AGAIN = "download it again and compare its checksum"


def source_files(source: Path) -> list[SourceFile]:
    """List the files of a folder or zip, or the file that it is.

    Raises:
        SourceError: there is nothing, a zip is damaged, or it names paths outside itself.
    """
    if source.is_dir():
        files = (path for path in sorted(source.rglob("*")) if path.is_file())
        return [
            SourceFile(path.relative_to(source).as_posix(), path.stat().st_size, path, zipped=False) for path in files
        ]
    if not source.exists():
        msg = f"source {source}: expected a folder, a zip or a file, found nothing there; check the path"
        raise SourceError(msg)
    if source.suffix.lower() != ".zip":
        return [SourceFile(source.name, source.stat().st_size, source, zipped=False)]
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
        if name.is_absolute() or ".." in name.parts or _DRIVE.match(name.parts[0]):
            msg = (
                f"source {source}: expected paths inside the zip, received member {member.filename!r}, which leaves it"
            )
            raise SourceError(msg)
    members.sort(key=lambda member: member.filename)
    return [SourceFile(member.filename, member.file_size, source, zipped=True) for member in members]
