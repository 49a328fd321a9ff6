"""Every plane takes the same state folder from the same KESTREL_STATE."""

import importlib

import pytest

from feature_repo.contracts.places import REPOSITORY

LOADERS = {
    "pipelines.settings": "load_settings",
    "models.settings": "settings",
    "serving.rollout.settings": "load_settings",
    "serving.recommender.settings": "load_settings",
}


@pytest.mark.parametrize("module", LOADERS)
@pytest.mark.parametrize(("given", "expected"), [("", REPOSITORY / ".kestrel"), ("rel", REPOSITORY / "rel")])
def test_state_folder(module, given, expected, monkeypatch):
    monkeypatch.setenv("KESTREL_STATE", given)
    loader = getattr(importlib.import_module(module), LOADERS[module])
    assert getattr(loader, "__wrapped__", loader)().state == expected
