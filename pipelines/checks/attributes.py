"""What refuses a value of an attribute, as its kind says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.schemas import Kind
from pipelines.checks.judging import TERM_MEANING, Check, is_no_term, named
from pipelines.io.sql_text import identifier
from pipelines.sources.adapter import text_column

if TYPE_CHECKING:
    from feature_repo.contracts.schemas import Attribute

_MOST_STEPS = 1 << 24
"""float32, in which numbers are stored, counts whole steps exactly up to here."""


def attribute_checks(attribute: Attribute, name: str, source_column: str) -> list[Check]:
    """Return the checks of the typed column `name`, read from a text."""
    value, text = identifier(name), identifier(text_column(name))
    match attribute.kind:
        case Kind.NUMERIC:
            largest = _MOST_STEPS * attribute.step
            expected = f"a number, or nothing, at most {largest:g} (so many steps of {attribute.step:g} are exact)"
            return [
                named("bad_number", f"{text} IS NOT NULL AND {value} IS NULL", source_column, expected, text),
                named("not_a_number", f"isnan({value})", source_column, expected, text),
                named("out_of_range", f"abs({value}) > {largest}", source_column, expected, text),
            ]
        case Kind.CATEGORICAL:
            return [named("bad_term", is_no_term(value), source_column, TERM_MEANING, text)]
        case Kind.MULTI_VALUED:
            bad = f"len(list_filter({value}, lambda term: {is_no_term('term')})) > 0"
            return [named("bad_term", bad, source_column, f"each {TERM_MEANING}", text)]
        case Kind.TEXT:
            return []
