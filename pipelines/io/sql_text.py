"""Names and texts, quoted for SQL."""

from __future__ import annotations

from feature_repo.contracts.ids import CUT_PATTERN


def identifier(name: str) -> str:
    """Quote a column or table name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a string."""
    return "'" + text.replace("'", "''") + "'"


def without_surroundings(text: str) -> str:
    """Return SQL for a text without the white space around it, as `contracts.ids.cut` cuts it."""
    return f"regexp_replace({text}, {literal(CUT_PATTERN)}, '', 'g')"
