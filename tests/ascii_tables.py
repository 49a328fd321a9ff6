"""Tables drawn in text, for specifications that a person reads.

    | user | item | value |
    | ann  | up   | 4.5   |

The first line names the columns; every cell is text, without the blanks around it.
"""

from __future__ import annotations


def parse_table(text: str) -> list[dict[str, str]]:
    """Read one table; ValueError for a line with another number of cells than the first."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    header, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    for row in rows:
        if len(row) != len(header):
            msg = f"table: expected {len(header)} cells as in {header}, received {row}"
            raise ValueError(msg)
    return [dict(zip(header, row, strict=True)) for row in rows]
