"""What a source is to the lake."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """Whether a source is all there is."""

    WHOLE = "whole"
    """What it does not have, the lake has not either afterwards. It is of the data set that the lake holds."""
    PART = "part"
    """Some of it, such as a day's file: merged by key, what comes later wins."""
    REPLACE = "replace"
    """Another data set: nothing of what the lake holds is left, nor of what came by the stream."""
