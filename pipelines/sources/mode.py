"""What a source is to the lake."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """Whether a source is all there is."""

    WHOLE = "whole"
    """What it does not have, the lake has not either afterwards."""
    PART = "part"
    """Some of it, such as a day's file: merged by key, what comes later wins."""
