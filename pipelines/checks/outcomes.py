"""What came of the checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from feature_repo.contracts.checks import Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from feature_repo.contracts.checks import Check


class Status(StrEnum):
    """What a check says."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_JUDGED = "not judged"
    """There is too little to judge by, or an earlier failure left nothing to look at."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check, and what it found."""

    check: Check
    status: Status
    received: str
    """What there is, for a person; why, where it is not judged."""
    examples: tuple[str, ...] = ()
    """A few of the rows at fault."""
    is_accepted: bool = False
    """Somebody knows of it (KESTREL_CHECK_ACCEPTED): it is shown, and stops nothing."""

    @property
    def stops(self) -> bool:
        """Tell whether nothing may be computed from this data."""
        return self.status is Status.FAILED and self.check.severity is Severity.ERROR and not self.is_accepted

    @property
    def warns(self) -> bool:
        """Tell whether a person should look, though the run goes on."""
        return self.status is Status.FAILED and not self.stops

    @property
    def sentence(self) -> str:
        """What was expected and received, in one sentence."""
        found = f"; for example {self.examples[0]}" if self.examples else ""
        return f"{self.check.name}: expected {self.check.expected}, received {self.received}{found}"


def accepting(outcomes: Iterable[Outcome], names: Collection[str]) -> tuple[Outcome, ...]:
    """Return the outcomes, those of the named checks marked as accepted."""
    return tuple(replace(outcome, is_accepted=outcome.check.name in names) for outcome in outcomes)
