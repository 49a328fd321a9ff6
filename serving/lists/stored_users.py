"""Users' fields from a file in place of Redis: the one command that the recommender sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping


class StoredUsers:
    """Answers `HMGET key field ...` (`serving.recommender.user_features.Commands`).

    Args:
        hashes: Key of a user's hash → field → what is stored.
    """

    def __init__(self, hashes: Mapping[bytes, Mapping[bytes, bytes]]) -> None:
        self._hashes = hashes

    async def execute_command(self, *args: object) -> Any:  # noqa: ANN401 - the protocol's type
        """Return what the fields hold, None where there is no such user or field."""
        command, key, *fields = args
        if command != "HMGET":
            msg = f"stored users: expected HMGET, the recommender's one command for users, received {command!r}"
            raise NotImplementedError(msg)
        stored = self._hashes.get(cast("bytes", key), {})
        return [stored.get(cast("bytes", field)) for field in fields]
