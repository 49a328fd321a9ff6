"""Options that the command lines of all planes share: a value that makes no sense is a usage error, in one sentence."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - typer reads the annotations
from typing import Annotated, TypeVar

import typer

from feature_repo.contracts.intervals import check_namespace
from feature_repo.contracts.jobs import JobError

Parsed = TypeVar("Parsed")


def checked(parse: Callable[[str], Parsed]) -> Callable[[str], Parsed]:
    """Let a ValueError or a JobError of `parse` end the command with its own message and the usage exit code."""

    def parse_option(text: str) -> Parsed:
        try:
            return parse(text)
        except (ValueError, JobError) as error:
            raise typer.BadParameter(str(error)) from error

    return parse_option


NamespaceName = Annotated[
    str,
    typer.Option(
        "--namespace",
        parser=checked(check_namespace),
        metavar="NAME",
        help="The data set's namespace, such as ml-100k.",
    ),
]
