"""Records that earlier code wrote are read still: `tests/records` keeps one of each kind in the last two formats."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path

import pytest

from feature_repo.contracts import manifests
from feature_repo.contracts.publishing import CorruptRecordError, write_json
from tests.releases import release_of_before, snapshot_of_before

KEPT = sorted((Path(__file__).parents[1] / "records").glob("format-*/*.json"))
KINDS = {
    name: kind
    for name, kind in vars(manifests).items()
    if isinstance(kind, type) and issubclass(kind, manifests._Record) and kind is not manifests._Record
}


def _written(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_kept_record_is_read_and_says_what_it_said(path):
    record = KINDS[path.stem].read(path)
    written = _written(path)
    assert written.pop("format", 0) == int(path.parent.name.removeprefix("format-"))
    since = {field.name: field.default for field in fields(record) if field.default is not MISSING}
    assert SAID.get((path.stem, path.parent.name), asdict)(record) == since | written


FIRST = {"Candidates": 1, "Refit": 1}
"""Kinds that are younger than the first format."""
SAID = {
    (kind, name): said
    for kind, said in (("Release", release_of_before), ("OnlineSnapshot", snapshot_of_before))
    for name in ("format-0", "format-1")
}


@pytest.mark.parametrize("name", ["Release", "OnlineSnapshot"])
def test_a_record_of_before_there_were_parts_that_lacks_a_field_is_damaged(name, tmp_path):
    (path,) = (path for path in KEPT if path.stem == name and path.parent.name == "format-1")
    for field in _written(path).keys() - {"format"}:
        write_json(tmp_path / "own.json", {key: value for key, value in _written(path).items() if key != field})
        with pytest.raises(CorruptRecordError, match=rf"missing fields \['{field}'\]"):
            KINDS[name].read(tmp_path / "own.json")


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"kind": "views"}, "part ranking: expected this name and one of the kinds"),
        ({"kind": "tower"}, "expected a ranker as part ranking"),
        ({"name": "tower"}, "received tower of kind ranker"),
        ({"kind": "bicycle"}, "field kind: expected one of"),
        ({"version": 3}, "field version: expected str, received 3"),
        ({"data": {"views": {}, "inputs": []}}, "data of a part of kind ranker: expected training_set_id, str"),
    ],
)
def test_a_part_that_is_not_what_it_should_be_is_named(change, refused, tmp_path):
    (path,) = (path for path in KEPT if path.stem == "Release" and path.parent.name == "format-2")
    written = _written(path)
    written["parts"]["ranking"] |= change
    write_json(tmp_path / "own.json", written)
    with pytest.raises(CorruptRecordError, match=refused):
        KINDS["Release"].read(tmp_path / "own.json")


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_kind_is_kept_in_the_present_format_and_the_one_before(name):
    present = KINDS[name].FORMAT
    kept = {path.parent.name for path in KEPT if path.stem == name}
    assert {f"format-{present}", f"format-{max(present - 1, FIRST.get(name, 0))}"} <= kept


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_field_that_is_not_known_is_passed_over_and_one_without_a_default_is_missed(name, tmp_path):
    kind = KINDS[name]
    (path,) = (path for path in KEPT if path.stem == name and path.parent.name == f"format-{kind.FORMAT}")
    own = tmp_path / path.name
    write_json(own, _written(path) | {"of_later_code": [1]})
    assert kind.read(own) == kind.read(path)
    for field in fields(kind):
        write_json(own, {key: value for key, value in _written(path).items() if key != field.name})
        if field.default is MISSING and field.default_factory is MISSING:
            with pytest.raises(CorruptRecordError, match=rf"not a {name}: missing fields \['{field.name}'\]"):
                kind.read(own)
        else:
            default = field.default if field.default is not MISSING else field.default_factory()
            assert getattr(kind.read(own), field.name) == default


def test_a_fit_that_stands_in_says_what_it_is_and_concerns_one_version():
    (path,) = (path for path in KEPT if path.stem == "Refit")
    refit = manifests.Refit.read(path)
    assert refit.is_of(refit.version, refit.run_id)
    assert not refit.is_of(refit.version, "of another")
    assert not refit.is_of("99", refit.run_id)
    assert refit.named.startswith(f"champion version {refit.version} (its spec fitted again on events before 1997-11-")
    impossible = replace(refit, saved_model="", impossible="its class is gone")
    assert impossible.needed
    assert impossible.named == f"champion version {refit.version}"
    assert impossible.why_not == f"{refit.why}; its spec cannot be fitted again: its class is gone"
    needless = replace(refit, saved_model="")
    assert (needless.needed, needless.why, needless.why_not) == (False, "", "")
