"""Lists that anybody could make, fitted on what was liked before an origin (`channels.fits`).

Every variant is written. Whoever measures them chooses on validation origins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from feature_repo.contracts.datasets import USER_ID
from feature_repo.contracts.questions import LIST_DEPTH, METHOD, SIMPLE_LISTS, VARIANT
from pipelines.channels.lists import first_items
from pipelines.io.arrow import conform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipelines.channels.fits import Variant
    from pipelines.channels.likes import LikeMatrix


def write_lists(matrix: LikeMatrix, users: Sequence[str], seen: pa.Table, ease_items: int) -> pa.Table:
    """Return rows of SIMPLE_LISTS: every variant's list for each of `users`.

    Args:
        matrix: What was liked before the origin.
        users: Whose lists, ascending.
        seen: user_id, item_id: what is left out of whose list.
        ease_items: EASE and ItemCF know so many of the most liked items.
    """
    lists = first_items(matrix, users, seen, ease_items, LIST_DEPTH)
    return conform(pa.concat_tables([_table(*each, matrix, users) for each in lists]), SIMPLE_LISTS)


def _table(variant: Variant, found: NDArray[np.intp], matrix: LikeMatrix, users: Sequence[str]) -> pa.Table:
    offsets = np.concatenate([[0], np.cumsum((found >= 0).sum(axis=1))]).astype(np.int32)
    items = pa.array(matrix.items[found[found >= 0]], pa.string())
    return pa.table(
        {
            METHOD.name: pa.repeat(pa.scalar(variant.method.value), len(users)),
            VARIANT.name: pa.repeat(pa.scalar(variant.parameters), len(users)),
            USER_ID.name: pa.array(users, pa.string()),
            "items": pa.ListArray.from_arrays(pa.array(offsets), items),
        }
    )
