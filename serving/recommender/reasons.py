"""A sentence for a person about why an item is shown."""

from __future__ import annotations

POPULAR_REASON = "popular with everyone"
CIRCLE_REASON = "liked by somebody you follow"


def liked_reason(title: str) -> str:
    """Say that the item is near one that the user liked."""
    return f"because you liked {title}"


def taste_reason(term: str) -> str:
    """Say that the item is popular, and has something that the user likes often, such as a genre."""
    return f"popular, and you often like {term}"


def similar_reason(title: str) -> str:
    """Say that the item is near the one that was asked about."""
    return f"liked by people who liked {title}"
