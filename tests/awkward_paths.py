"""Folders whose names mean something to almost every engine, for worlds of tests that lie in them."""

AWKWARD = "st [1] rating=1 é %41 {a,b}*?#x;$y 'q:/user_id=7/item_id=A1"
"""Patterns, Hive's partitions, an escape of URLs, a query, a fragment, a comment, a variable, quotes, no ASCII."""
LOCAL = "st [1] rating=1 é {a,b}*&~/user_id=7"
"""The same as far as the engines of one machine can be told; others are refused (`infra.local.settings`)."""
