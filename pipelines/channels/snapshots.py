"""Dated tables of fitted channels (`io.dated`). Each has a folder of its own, `channels/<name>/`.

What is written down beside a table is the part that it is of a snapshot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.channels import TABLES
from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.manifests import Part, channel_part
from feature_repo.contracts.publishing import CorruptRecordError
from pipelines.errors import CorruptDatasetError, JobError
from pipelines.io.arrow import conform
from pipelines.io.dated import check_dated, dated_record, write_dated

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from feature_repo.contracts.channels import Channel
    from feature_repo.contracts.places import Namespace
    from pipelines.channels.choice import Choice

WRITER = "python -m pipelines channels"
_REMEDY = f"run `{WRITER}` for this cutoff"


def write_channel(place: Namespace, channel: Channel, cutoff: datetime, choice: Choice, rows: pa.Table) -> Part:
    """Store a channel's table as the one of `cutoff`, and the part beside it; both by rename. Return the part.

    Raises:
        ValueError: The channel has no table.
    """
    if channel.table is None:
        msg = f"channel {channel.name}: expected one that has a table, received one that is not fitted on likes"
        raise ValueError(msg)
    folder = place.channels / channel.name
    path, sha256 = write_dated(folder, cutoff, conform(rows, TABLES[channel.table]))
    part = channel_part(
        channel.name,
        format_cutoff(cutoff),
        path.relative_to(place.root).as_posix(),
        sha256,
        definition=channel.definition,
        table=channel.table.value,
        half_life_days=choice.variant.half_life if choice.variant.is_personal else 0.0,
        variant=choice.variant.parameters,
        validation=choice.validation,
    )
    part.write(dated_record(folder, cutoff))
    return part


def find_channel(place: Namespace, channel: Channel, cutoff: datetime) -> Part:
    """Return a channel's table of `cutoff` as a part of a snapshot, after comparing the file with its checksum.

    Raises:
        JobError: None was fitted for this cutoff by the channel's definition.
        CorruptDatasetError: The file is missing or has other bytes, or the record is none.
    """
    path = dated_record(place.channels / channel.name, cutoff)
    subject = f"channel {channel.name} of namespace {place.name}"
    try:
        part = Part.read(path, _REMEDY)
    except FileNotFoundError as error:
        msg = f"{subject}: expected {path}, found none; {_REMEDY}"
        raise JobError(msg) from error
    except CorruptRecordError as error:
        raise CorruptDatasetError(str(error)) from error
    if part.data["definition"] != channel.definition:
        msg = (
            f"{subject}: expected a fit by the definition {channel.definition}, received {part.data['definition']}: "
            f"what is a like, or how channels are fitted, has changed since; {_REMEDY}"
        )
        raise JobError(msg)
    check_dated(place.root / part.path, part.checksum, _REMEDY)
    return part
