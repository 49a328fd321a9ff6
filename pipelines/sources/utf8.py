"""A file in any encoding as a stream of UTF-8; bytes that it does not have become U+FFFD, so that no row is lost."""

from __future__ import annotations

import codecs
import io
from typing import IO


class Utf8Stream(io.RawIOBase):
    """Reads another stream and gives it in UTF-8, without a byte order mark."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        super().__init__()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._rest, self._is_first, self._is_done = b"", True, False

    def readable(self) -> bool:
        """Say yes, as a stream to be read does."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer has no length
        """Fill `buffer`; 0 at the end."""
        while not self._rest and not self._is_done:
            data = self._stream.read(max(len(buffer), 1 << 16))
            self._is_done = not data
            text = self._decoder.decode(data, final=self._is_done)
            if self._is_first and text:
                text, self._is_first = text.removeprefix("\ufeff"), False
            self._rest = text.encode()
        taken, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)
