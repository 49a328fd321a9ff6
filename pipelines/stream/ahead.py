"""How a user's rows may differ from the batch's because the stream has worked since, and how they may not.

The stream writes few views, and each in its own way. Whatever else differs was not the stream.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from feature_repo.contracts.features import Declared, FeatureGroup

Row = tuple[datetime | None, "Mapping[str, Any]"]
"""A row's event time, None where there is none, and its values."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def streamed_views(declaration: Declared) -> dict[str, Callable[[Row, Row], bool]]:
    """Return view → whether a row that should be the first may have become the second by the stream."""
    rules: dict[str, Callable[[Row, Row], bool]] = {
        declaration.user_activity.view_name: _is_later,
        declaration.user_session.view_name: _is_later,
        declaration.user_sequence.view_name: _is_later,
        declaration.user_history.view_name: _has_more_items,
        declaration.user_liked_items.view_name: _likes_later,
    }
    return rules | {group.view_name: _blank(group) for group in declaration.user_unstreamed}


def _is_later(batch: Row, online: Row) -> bool:
    """The row of an event since."""
    return online[0] is not None and (batch[0] is None or online[0] >= batch[0])


def _has_more_items(batch: Row, online: Row) -> bool:
    """The batch's items with others among them, and the batch's stamp."""
    (before,), (now,) = batch[1].values(), online[1].values()
    return online[0] == (batch[0] or _EPOCH) and isinstance(now, list) and set(before or ()) <= set(now)


def _likes_later(batch: Row, online: Row) -> bool:
    """The batch's items, unless so many others were liked since that they fell off; none liked earlier; its stamp."""
    before, now = (_likes(row) for row in (batch, online))
    return (
        online[0] == (batch[0] or _EPOCH)
        and len(now) >= len(before)
        and all(now[item] >= time for item, time in before.items() if item in now)
    )


def _likes(row: Row) -> dict[str, int]:
    items, times = (values or () for values in row[1].values())
    return {item: time for item, time in zip(items, times, strict=False) if isinstance(time, int)}


def _blank(group: FeatureGroup) -> Callable[[Row, Row], bool]:
    """What the next batch will write of a user of whom the source says nothing."""
    blank = {column.name: column.blank for column in group.features}

    def is_blank(batch: Row, online: Row) -> bool:
        return batch[0] is None and online == (_EPOCH, blank)

    return is_blank
