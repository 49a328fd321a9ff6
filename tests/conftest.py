"""What holds for all tests."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import settings

from infra.local.check import UNTIL
from tests.interrupts import end_by_sigterm_as_by_ctrl_c

QUICK = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
LITTLE_DATA = {"spark.driver.extraJavaOptions": QUICK, "spark.executor.extraJavaOptions": QUICK}
"""Tests' Spark works on little data for a short time: Java's thorough compiler costs more than it gives there."""

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile("same")
"""Same examples each time, so that a failure tells of the change; `--hypothesis-profile=search` looks for new ones. No
example has a deadline: a busy machine fails no test."""

end_by_sigterm_as_by_ctrl_c()

os.environ.setdefault("KESTREL_SPARK_OPTIONS", json.dumps(LITTLE_DATA))


_LONGEST_FIRST = ("e2e", "integration", "spec", "conformance")
"""Folders of tests, those with the longest files first: at the end there must be short ones to share out."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Begin with the end-to-end tests: they take longest, and the others run beside them in a second process.

    Tests of files that are marked so run in the order of the file, however others are shuffled.
    """
    root = Path(__file__).parent
    place = {name: number for number, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.relative_to(root).parts[0], len(place)))
    for path in {item.path for item in items if item.get_closest_marker("in_order")}:
        places = [number for number, item in enumerate(items) if item.path == path]
        as_they_stand = sorted((items[number] for number in places), key=lambda item: item.location[1])
        for number, item in zip(places, as_they_stand, strict=True):
            items[number] = item


def pytest_runtest_setup(item):
    """Begin no test after the moment that `make check` has named."""
    until = os.environ.get(UNTIL)
    if until and time.time() > float(until):
        failed = item.session.testsfailed
        pytest.exit("the minute is over: `make test-unit` runs the rest", returncode=1 if failed else 0)
