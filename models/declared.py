"""Declarations of the model plane: YAML files that a pydantic model checks, each with one that comes along."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from feature_repo.contracts.jobs import JobError

Declared = TypeVar("Declared", bound=BaseModel)
_WORDS = (("Tuple", "List"), ("a valid array", "a list"), ("an object", "names and values"), (" after validation", ""))
"""Python's and JSON's words for what a file has → YAML's."""


class _Loader(yaml.SafeLoader):
    """YAML's own, which lets the last of two equal keys win; `1e-3` is a number, as in JSON."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - as YAML calls it
        """Return a mapping that has each key once; ConstructorError says where it has not."""
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in lines:
                problem = f"the key {key.value!r} of line {lines[key.value]} again"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                lines[key.value] = line
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), "-+0123456789")


def read_declared(kind: type[Declared], path: Path, example: Path, refusal: type[JobError]) -> Declared:
    """Return what the file at `path` declares; errors name `example`, a file that is as it should be.

    Raises:
        JobError: The file is none of its kind; `refusal` is the class.
    """
    try:
        return checked(kind, yaml.load(path.read_text(encoding="utf-8"), _Loader))  # noqa: S506 - it is a safe one
    except ValidationError as error:
        msg = f"{path}: {told(error)}; {example} is an example"
        raise refusal(msg) from error
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        received = (
            f"{getattr(error, 'problem', error)} in line {mark.line + 1}" if mark else " ".join(str(error).split())
        )
        msg = f"{path}: expected a YAML file of {kind.__name__.lower()} such as {example}, received {received}"
        raise refusal(msg) from error


def checked(kind: type[Declared], given: object) -> Declared:
    """Return what is given in JSON's types, each of them taken for what it is: `true` is no 1.

    A model of its own validators of mode `before` would have to return tuples for lists.

    Raises:
        ValidationError: It is none of its kind.
    """
    return kind.model_validate_json(json.dumps(given, default=str), strict=True)


def told(error: ValidationError) -> str:
    """Return every fault with its place and the value that was received, in one line."""
    faults = [each for each in error.errors() if each["type"] != "default_factory_not_called"]
    # What is wrong within a list is left out of it, and then the list is said to be too short.
    within = {each["loc"][:end] for each in faults for end in range(len(each["loc"]))}
    return "; ".join(_told(each) for each in faults if each["type"] != "too_short" or each["loc"] not in within)


def _told(fault: ErrorDetails) -> str:
    place = list(fault["loc"])
    if fault["type"] == "value_error":
        while place and isinstance(place[-1], str):
            place.pop()  # our own sentences name the field
        return ": ".join(filter(None, (".".join(map(str, place)), str(fault["ctx"]["error"]))))
    message = fault["msg"]
    for word, ours in _WORDS:
        message = message.replace(word, ours)
    return f"{'.'.join(map(str, place)) or 'the whole'}: {message}, received {fault['input']!r:.80}"
