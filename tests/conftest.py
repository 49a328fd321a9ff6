"""What holds for all tests."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Begin with the end-to-end tests: they take longest, and the others run beside them in a second process."""
    items.sort(key=lambda item: "e2e" not in item.keywords)
