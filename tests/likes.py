"""Likes for tests, written as pairs."""

from __future__ import annotations

import numpy as np

from pipelines.questions.asked import Likes

Liked = dict[tuple[str, str], float]
"""(user, item) → days before the moment."""


def arrays(liked: Liked) -> Likes:
    """Return likes as the data plane reads them: in the order of users and items."""
    pairs = sorted(liked)
    (users, of_user), (items, of_item) = (
        np.unique(np.array([pair[place] for pair in pairs], dtype=np.str_), return_inverse=True) for place in (0, 1)
    )
    return Likes(users, items, of_user, of_item, np.array([liked[pair] for pair in pairs], dtype=np.float64))
