"""Following the logs of the parts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from infra.local.errors import LocalError
from infra.local.places import Places
from infra.local.stack import last_lines

if TYPE_CHECKING:
    from pathlib import Path

_POLL_S = 0.5


def _whole_lines(path: Path, offset: int) -> tuple[list[str], int]:
    """Return the lines that were completed since `offset`, and the offset after them; a rotated log starts anew."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            stream.seek(offset if offset <= size else 0)
            data = stream.read()
            end = data.rfind(b"\n") + 1
            position = stream.tell() - len(data) + end
    except FileNotFoundError:
        return [], 0
    return data[:end].decode(errors="replace").splitlines(), position


def follow(state: Path, part: str) -> int:
    """Print the logs' last lines and then what is added, each line with its part's name, until Ctrl-C."""
    places = Places(state)
    names = sorted(path.stem for path in places.logs.glob("*.log"))
    if part and part not in names:
        msg = (
            f"part {part!r} has no log in {places.logs}: expected one of {', '.join(names) or 'none yet; run make up'}"
        )
        raise LocalError(msg)
    if not names:
        msg = f"{places.logs} has no logs yet; run make up"
        raise LocalError(msg)
    chosen = [part] if part else names
    width = max(map(len, chosen))
    offsets = {name: places.log(name).stat().st_size for name in chosen}
    for name in chosen:
        for line in last_lines(places.log(name), 100 if part else 5).splitlines():
            print(f"{name:<{width}} | {line}")  # noqa: T201 - the command's result
    while True:
        for name in chosen:
            lines, offsets[name] = _whole_lines(places.log(name), offsets[name])
            for line in lines:
                print(f"{name:<{width}} | {line}", flush=True)  # noqa: T201 - the command's result
        time.sleep(_POLL_S)
