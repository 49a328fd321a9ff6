"""Every life-cycle scenario recorded from TensorFlow ModelServer, each with a real server process of its own.

They wait most of the time, so several run at once: the first test starts them all.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.records import SCENARIOS, read_records
from tests.conformance.scenario import run_scenario

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.server_process import Launcher

AT_ONCE = 6


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, launcher: Launcher, recorded_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[list[str]]]]:
    """Return scenario → what will have gone otherwise than expected, for those that are to be run."""
    chosen = [
        item.callspec.params["scenario"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path
    ]
    folder = tmp_path_factory.mktemp("scenarios")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            scenario["id"]: pool.submit(run_scenario, scenario, launcher, recorded_models, folder / scenario["id"])
            for scenario in chosen
        }


@pytest.mark.parametrize("scenario", read_records(SCENARIOS), ids=lambda scenario: scenario["id"])
def test_a_recorded_scenario_goes_as_recorded(scenario: dict[str, Any], outcomes: dict[str, Future[list[str]]]) -> None:
    found = outcomes[scenario["id"]].result()
    assert not found, "\n".join(found)
