"""Declarations of the model plane: YAML files that a pydantic model checks, each with one that comes along."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.jobs import JobError

Declared = TypeVar("Declared", bound=BaseModel)


def read_declared(kind: type[Declared], path: Path, example: Path, refusal: type[JobError]) -> Declared:
    """Return what the file at `path` declares; errors name `example`, a file that is as it should be.

    Raises:
        JobError: The file is none of its kind; `refusal` is the class.
    """
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"{path}: expected a YAML file of {kind.__name__.lower()} such as {example}, received {error}"
        raise refusal(msg) from error
    except ValidationError as error:
        msg = f"{path}: {told(error)}; {example} is an example"
        raise refusal(msg) from error


def told(error: ValidationError) -> str:
    """Return every fault with its place and the value that was received, in one line."""
    return "; ".join(
        str(each["ctx"]["error"])
        if each["type"] == "value_error"
        else f"{'.'.join(map(str, each['loc'])) or 'the whole'}: {each['msg']}, received {each['input']!r:.80}"
        for each in error.errors()
    )
