"""Stored tables: Parquet partitions that change by rename, and the manifest that says what they hold.

A table lies in one folder: `event_date=YYYY-MM-DD/part-0.parquet`, or `part-0.parquet` where it is undivided, and
`_manifest.json`, written last. A writer holds the table's lock, stages every changed partition beside its place, and
only when all are complete renames them. Before the first rename it writes down, beside them, what the manifest will be:
what a writer left half renamed that was killed, or found the disk full, the next one finishes. A reader compares files
with the manifest before it reads, and afterwards whether they are still the same files: a partition that was renamed
into its place meanwhile is seen even if its writer has not come as far as the manifest.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.places import DATASET_MANIFEST, PARTITION_FILE
from feature_repo.contracts.publishing import (
    CorruptRecordError,
    file_sha256,
    read_json,
    remove_abandoned,
    replacing,
    sync_directory,
    write_json,
)
from feature_repo.locks import exclusive
from pipelines.errors import CorruptDatasetError, DatasetChangedError, JobError, LockedError
from pipelines.io.arrow import arrow_schema, conform, content_sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from feature_repo.contracts.datasets import Dataset
    from feature_repo.contracts.places import Namespace

UNDIVIDED = "all"
"""The name of the only partition of a table that is not partitioned."""
_DATE_PREFIX = "event_date="
_STAGING = ".staging"
_INGEST = "python -m pipelines ingest"
_LAKE_REMEDY = (
    f"run `{_INGEST}` of the whole source, which writes it anew; where parts are all there is, restore the file from a "
    "backup, or remove it and its entry in the manifest, and ingest the parts again that have rows of it"
)


FileMark = tuple[int, int, int] | None
"""Which file lies in a place: its inode, when it was written, in nanoseconds, its bytes; None without a file."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition as the manifest describes it."""

    rows: int
    sha256: str
    """Of the canonical content."""
    file_sha256: str
    """Of the file's bytes."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The partitions of a table that a reader has checked, in the order of their names."""

    dataset: Dataset
    folder: Path
    partitions: dict[str, Partition]
    found: dict[str, FileMark] = field(default_factory=dict)
    """The files of the partitions as they were before they were compared with the manifest."""

    @property
    def files(self) -> list[Path]:
        """One Parquet file per partition."""
        return [partition_file(self.folder, name) for name in self.partitions]

    @property
    def rows(self) -> int:
        """Rows of all partitions."""
        return sum(partition.rows for partition in self.partitions.values())

    @property
    def checksum(self) -> str:
        """SHA-256 over names, rows and contents of the partitions."""
        return partitions_sha256(self.partitions)

    def within(self, start: datetime | None, end: datetime) -> Snapshot:
        """Return the partitions of the days from `start` (default: the first) to before `end`."""
        chosen = {
            name: partition
            for name, partition in self.partitions.items()
            if is_before(name, end) and not (start and is_before(name, start))
        }
        return replace(self, partitions=chosen)

    def read(self) -> pa.Table:
        """Read everything into memory, in the canonical order."""
        schema = arrow_schema(self.dataset)
        return pa.concat_tables([schema.empty_table(), *(pq.ParquetFile(file).read() for file in self.files)])


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A dataset of the lake or a feature view's table, in its place."""

    dataset: Dataset
    folder: Path
    lock: Path
    writer: str
    """The command that writes it, for messages."""
    remedy: str = ""
    """What to do about a damaged file, where `writer` does not write it anew."""
    manifest_remedy: str = ""
    """What to do about a damaged manifest, where `writer` does not write everything anew."""

    @property
    def mending(self) -> str:
        """Say what to do about a damaged file."""
        return self.remedy or f"run `{self.writer}`, which writes it anew"

    def snapshot(self, *, before: datetime | None = None) -> Snapshot:
        """Return the partitions of dates before `before` (default: all), after comparing files with the manifest.

        Raises:
            JobError: the table was never written.
            DatasetChangedError: somebody is writing it right now.
            CorruptDatasetError: a file is missing, has other bytes than the manifest says, or was written when the
                data set had another schema.
        """
        partitions = self._manifest()
        chosen = {name: partition for name, partition in partitions.items() if is_before(name, before)}
        found = {name: _mark(partition_file(self.folder, name)) for name in chosen}
        for name, partition in chosen.items():
            file = partition_file(self.folder, name)
            if not is_intact(file, partition):
                self._explain_mismatch(file, partitions)
        for file in unlisted_files(self.folder, partitions):
            self._explain_mismatch(file, partitions)
        for name in list(chosen)[:1]:  # all are written at once
            file = partition_file(self.folder, name)
            self.check_columns(file, pq.read_schema(file))
        return Snapshot(self.dataset, self.folder, chosen, found)

    @contextmanager
    def reading(self, *, before: datetime | None = None) -> Iterator[Snapshot]:
        """Give a snapshot to a reader that takes its time.

        Raises:
            DatasetChangedError: at the end, whatever the reader made of it, if a writer came between.
        """
        snapshot = self.snapshot(before=before)
        try:
            yield snapshot
        except Exception as error:
            self._expect_unchanged(snapshot, error)
            raise
        self._expect_unchanged(snapshot)

    def check_columns(self, file: Path, received: pa.Schema) -> None:
        """Refuse a file that was written by another schema: an ingestion by the present one was cut off before it."""
        expected = arrow_schema(self.dataset)
        if not received.remove_metadata().equals(expected):
            msg = (
                f"{file}: expected the columns of the data set's schema, {_columns(expected)}, received "
                f"{_columns(received)}: the schema has changed, and the table was not written since; {self.mending}"
            )
            raise CorruptDatasetError(msg)

    def _expect_unchanged(self, snapshot: Snapshot, cause: Exception | None = None) -> None:
        if any(_mark(partition_file(self.folder, name)) != snapshot.found[name] for name in snapshot.partitions):
            msg = f"table {self.dataset.name} in {self.folder} was rewritten while it was read; run the job again"
            raise DatasetChangedError(msg) from cause

    @property
    def partitions(self) -> dict[str, Partition]:
        """The partitions as the manifest names them, unchecked; none where the table was never written."""
        return self._manifest() if self.exists else {}

    @property
    def exists(self) -> bool:
        """Whether the table was ever written."""
        return (self.folder / DATASET_MANIFEST).exists()

    @contextmanager
    def rewriting(self, replaces: Callable[[str], bool] = lambda _: True) -> Iterator[Writer]:
        """Give a writer whose partitions are published when the block ends well; otherwise nothing changes.

        Partitions whose names `replaces` accepts and which the writer does not get are removed; others stay.
        """
        with self.locked():
            self._finish_interrupted()
            staging = self.folder / _STAGING
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            try:
                writer = Writer(self, self.partitions)
                yield writer
                writer.publish(replaces)
            except BaseException:
                # What failed between the renames (a full disk) is the next writer's to finish, as after a kill.
                if not (staging / DATASET_MANIFEST).exists():
                    shutil.rmtree(staging, ignore_errors=True)
                raise
            shutil.rmtree(staging, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the table's lock, which the kernel frees if the process dies; LockedError if another has it."""
        with exclusive(self.lock, f"table {self.dataset.name}"):
            yield

    def finish(self) -> None:
        """Finish what a writer began that was cut off while it renamed; for who reads the table before writing it."""
        with self.locked():
            self._finish_interrupted()

    def switch(self, partitions: dict[str, Partition]) -> None:
        """Rename what is staged into its place, remove what is stale, and write the manifest; under the table's lock.

        Done again after an interruption at any step, it ends the same.
        """
        for name in partitions:
            part, target = self.staged(name), partition_file(self.folder, name)
            if part.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                part.replace(target)
                sync_directory(target.parent)
        for file in unlisted_files(self.folder, partitions):
            file.unlink()
            if file.parent != self.folder:
                file.parent.rmdir()
        if not self.exists or self._manifest() != partitions:
            write_json(self.folder / DATASET_MANIFEST, _manifest_record(partitions))

    def staged(self, name: str) -> Path:
        """Return where a partition waits to be renamed."""
        return self.folder / _STAGING / f"{name}.parquet"

    def _finish_interrupted(self) -> None:
        """Finish what was begun, under the table's lock; what was only staged is left alone."""
        remove_abandoned(self.folder)
        intended = self.folder / _STAGING / DATASET_MANIFEST
        if intended.exists():
            self.switch(self._manifest(intended))

    def _manifest(self, path: Path | None = None) -> dict[str, Partition]:
        path = path or self.folder / DATASET_MANIFEST
        remedy = self.manifest_remedy or f"remove the folder and run `{self.writer}`"
        try:
            record = cast("dict[str, dict[str, Any]]", read_json(path, remedy).get("partitions"))
            return {name: Partition(**record[name]) for name in sorted(record)}
        except FileNotFoundError as error:
            msg = f"table {self.dataset.name}: expected {path}, found none; run `{self.writer}` first"
            raise JobError(msg) from error
        except CorruptRecordError as error:
            raise CorruptDatasetError(str(error)) from error
        except (TypeError, KeyError, AttributeError) as error:
            msg = f"{path}: not a table's manifest ({error}); {remedy}"
            raise CorruptDatasetError(msg) from error

    def _explain_mismatch(self, file: Path, seen: dict[str, Partition]) -> NoReturn:
        try:
            with self.locked():
                changed = self._manifest() != seen
        except LockedError:
            changed = True
        if changed:
            msg = f"table {self.dataset.name} in {self.folder} is being rewritten; run the job again when it is done"
            raise DatasetChangedError(msg)
        received = "other bytes, or a file it does not name" if file.exists() else "no file"
        msg = (
            f"{file}: expected what {DATASET_MANIFEST} names, received {received}: a write was interrupted, or the "
            f"file was changed by hand; {self.mending}"
        )
        raise CorruptDatasetError(msg)


@dataclass(slots=True)
class Writer:
    """Takes partitions, stages what is new, publishes all at once."""

    table: StoredTable
    existing: dict[str, Partition]
    staged: dict[str, Partition] = field(default_factory=dict)
    partitions: dict[str, Partition] = field(default_factory=dict)
    """What the table holds, known once it is published."""
    changed: list[str] = field(default_factory=list)
    """Names of the partitions that were written or removed, known once they are published."""

    def add(self, name: str, rows: pa.Table) -> None:
        """Stage one partition, unless the table has the same content already."""
        if name in self.staged:
            msg = (
                f"table {self.table.dataset.name}: partition {name} came twice; rows must come in order of their dates"
            )
            raise JobError(msg)
        rows = conform(rows, self.table.dataset)
        content = content_sha256(rows)
        existing = self.existing.get(name)
        if existing and existing.sha256 == content and not self.is_damaged(name):
            self.staged[name] = existing
            return
        part = self.table.staged(name)
        with replacing(part) as path:
            pq.write_table(rows, path, compression="zstd", row_group_size=1 << 17)
        self.staged[name] = Partition(rows.num_rows, content, file_sha256(part))

    def publish(self, replaces: Callable[[str], bool]) -> None:
        """Put what was staged in the place of what it replaces: all of it, whatever happens from here on."""
        kept = {name: partition for name, partition in self.existing.items() if not replaces(name)}
        if kept.keys() & self.staged.keys():
            outside = sorted(kept.keys() & self.staged.keys())
            msg = f"table {self.table.dataset.name}: expected partitions of the interval, received {outside}"
            raise JobError(msg)
        written = [name for name in self.staged if self.table.staged(name).exists()]
        stale = [name for name in self.existing if name not in kept and name not in self.staged]
        self.partitions = dict(sorted({**kept, **self.staged}.items()))
        if written or stale:
            write_json(self.table.folder / _STAGING / DATASET_MANIFEST, _manifest_record(self.partitions))
        self.table.switch(self.partitions)
        self.changed = sorted({*written, *stale})

    def current(self, name: str) -> pa.Table:
        """Return the rows that the table holds of a partition, none if it has none.

        CorruptDatasetError where they are damaged, or of another schema.
        """
        if name not in self.existing:
            return arrow_schema(self.table.dataset).empty_table()
        file = partition_file(self.table.folder, name)
        if self.is_damaged(name):
            received = "other bytes" if file.exists() else "no file"
            msg = (
                f"{file}: expected what {DATASET_MANIFEST} names, received {received}: it was changed by hand or "
                f"damaged; {self.table.mending}"
            )
            raise CorruptDatasetError(msg)
        rows = pq.ParquetFile(file).read()
        self.table.check_columns(file, rows.schema)
        return rows

    def is_damaged(self, name: str) -> bool:
        """Tell whether the table's file of a partition is missing or has other bytes than the manifest says."""
        known = self.existing.get(name)
        return known is not None and not is_intact(partition_file(self.table.folder, name), known)


def stored_dataset(place: Namespace, dataset: Dataset) -> StoredTable:
    """Return a dataset of the lake."""
    lock = place.locks / f"lake-{dataset.name}.lock"
    return StoredTable(dataset, place.dataset(dataset.name), lock, _INGEST, _LAKE_REMEDY)


def partition_name(day: date) -> str:
    """Return the name of a day's partition: `event_date=1998-04-22`."""
    return f"{_DATE_PREFIX}{day.isoformat()}"


def partition_day(name: str) -> datetime:
    """Return the midnight in UTC that begins a day's partition: the inverse of `partition_name`."""
    return datetime.combine(date.fromisoformat(name.removeprefix(_DATE_PREFIX)), time(), UTC)


def partition_file(folder: Path, name: str) -> Path:
    """Return the file of a partition."""
    return folder / PARTITION_FILE if name == UNDIVIDED else folder / name / PARTITION_FILE


def unlisted_files(folder: Path, partitions: Collection[str]) -> list[Path]:
    """Return partition files that `partitions` does not name: stale ones, or what a killed writer left behind."""
    listed = {partition_file(folder, name) for name in partitions}
    found = [*folder.glob(PARTITION_FILE), *folder.glob(f"{_DATE_PREFIX}*/{PARTITION_FILE}")]
    return sorted(file for file in found if file not in listed)


def is_before(name: str, cutoff: datetime | None) -> bool:
    """Tell whether a partition's day lies before `cutoff`, a midnight; an undivided table's always does."""
    return cutoff is None or name == UNDIVIDED or name < partition_name(cutoff.date())


def partitions_sha256(partitions: dict[str, Partition]) -> str:
    """Return one SHA-256 over names, rows and contents."""
    lines = (f"{name}\0{part.rows}\0{part.sha256}\n" for name, part in sorted(partitions.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _mark(file: Path) -> FileMark:
    try:
        stat = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def is_intact(file: Path, partition: Partition) -> bool:
    """Tell whether a file is there and has the bytes that the manifest says."""
    return file.is_file() and file_sha256(file) == partition.file_sha256


def _manifest_record(partitions: dict[str, Partition]) -> dict[str, object]:
    return {"partitions": {name: asdict(partition) for name, partition in partitions.items()}}


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
