"""An id of a user, an item or an event: one rule at every door, so that what came in by one is found by another.

What surrounds an id is cut: white space, and what has no width, which no person sees and no source means. What is left
names the user or the item in files, requests, keys and paths of URLs, and so it may hold nothing that one of them
cannot carry. The rule is two regular expressions, in what Python, RE2 (DuckDB, TensorFlow) and Rust (pydantic) share.
"""

from __future__ import annotations

import re
from urllib.parse import quote

ID_MAX = 128
_CUT = "\t-\r \x85\xa0\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"
"""Unicode's white space, and its invisible marks: of no width, of direction, of byte order."""
_NEVER = r"\x00-\x1f\x7f-\x9f/" + "\ufffd"
"""Control characters; the slash, which parts paths; what stands for bytes that could not be decoded."""
_WITHIN, _AT_ENDS, _AT_ENDS_NO_DOT = f"[^{_NEVER}]", f"[^{_NEVER}{_CUT}]", f"[^.{_NEVER}{_CUT}]"

CUT_PATTERN = f"^[{_CUT}]+|[{_CUT}]+$"
"""What is cut: to be replaced by nothing, wherever it is found."""
ID_PATTERN = f"^(?:{_AT_ENDS_NO_DOT}{_AT_ENDS}?|{_AT_ENDS}{_AT_ENDS_NO_DOT}|{_AT_ENDS}{_WITHIN}+{_AT_ENDS})$"
"""What is left: one character but a dot, two but dots, or more; `.` and `..` in a path are folded away by clients."""
ID_MEANING = f"an id of 1 to {ID_MAX} characters, without control characters or slashes, and neither . nor .."

_SURROUNDINGS = re.compile(CUT_PATTERN)
_ID = re.compile(ID_PATTERN)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Half a character: JSON may name one, no UTF-8 can write it, and no pattern of SQL's or the API's can speak of it."""


def cut(text: str) -> str:
    """Return a text without what surrounds it."""
    return _SURROUNDINGS.sub("", text)


def is_id(text: str) -> bool:
    """Tell whether a text is an id as it stands, with nothing around it."""
    return len(text) <= ID_MAX and _ID.fullmatch(text) is not None and _SURROGATE.search(text) is None


def read_id(text: str) -> str:
    """Return the id that a text holds; ValueError where it holds none."""
    identity = cut(text)
    if not is_id(identity):
        msg = f"expected {ID_MEANING}"
        raise ValueError(msg)
    return identity


def path_part(text: str) -> str:
    """Return an id, or another name, as a part of a URL's path: whatever it holds, it is one part and the same name."""
    return quote(text, safe="")
