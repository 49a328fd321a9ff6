"""Compare a reply with the recorded one under a rule: exact, json, approx or status_only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework import tensor_pb2

RELATIVE_TOLERANCE = 1e-5
ABSOLUTE_TOLERANCE = 1e-6

RULES = ("exact", "json", "approx", "status_only")


def differences(kind: str, expected: Mapping[str, Any], actual: Mapping[str, Any], rule: str) -> list[str]:
    """Return what differs, in words; an empty list means that the reply passes."""
    if rule not in RULES:
        msg = f"unknown compare rule {rule!r}; one of {', '.join(RULES)} was expected"
        raise ValueError(msg)
    if kind == "rest":
        return _rest(expected, actual, rule)
    return _grpc(expected, actual, rule)


def _rest(expected: Mapping[str, Any], actual: Mapping[str, Any], rule: str) -> list[str]:
    found = _unequal("status", expected["status"], actual["status"])
    if rule == "status_only":
        return found + _error_object_kept(expected, actual)
    found += _unequal("content_type", expected["content_type"], actual["content_type"])
    if rule == "exact":
        return found + _unequal("body", expected["body"], actual["body"])
    try:
        want = json.loads(expected["body"])
    except ValueError:
        return found + _unequal("body", expected["body"], actual["body"])
    try:
        got = json.loads(actual["body"])
    except ValueError as error:
        return [*found, f"body: not JSON ({error}): {actual['body'][:300]!r}"]
    return found + _values("body", want, got, approx=rule == "approx")


def _error_object_kept(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    """Under status_only an error must still be an object whose only key is 'error'."""
    if '"error"' not in expected["body"]:
        return []
    try:
        got = json.loads(actual["body"])
    except ValueError:
        return [f"body: a JSON object with the key 'error' expected: {actual['body'][:300]!r}"]
    if not isinstance(got, dict) or set(got) != {"error"} or not isinstance(got["error"], str):
        return [f"body: a JSON object with the key 'error' alone expected: {str(got)[:300]}"]
    return []


def _grpc(expected: Mapping[str, Any], actual: Mapping[str, Any], rule: str) -> list[str]:
    found = _unequal("code", expected["code"], actual["code"])
    if found:
        return [f"{found[0]} (details: {actual.get('details', '')[:300]!r})"]
    if rule == "status_only":
        return []
    if expected["code"] != "OK":
        return _unequal("details", expected["details"], actual["details"])
    want, got = expected["response"], actual["response"]
    if rule != "exact":
        want, got = _plain_tensors(want), _plain_tensors(got)
    return _values("response", want, got, approx=rule == "approx")


def _plain_tensors(response: Mapping[str, Any]) -> dict[str, Any]:
    """Replace each output tensor by dtype, shape and values, whichever field carries them."""
    plain = dict(response)
    if isinstance(plain.get("outputs"), Mapping):
        plain["outputs"] = {key: _plain(value) for key, value in plain["outputs"].items()}
    return plain


def _plain(tensor: Mapping[str, Any]) -> dict[str, Any]:
    proto = json_format.ParseDict(dict(tensor), tensor_pb2.TensorProto())
    array = tf.make_ndarray(proto)
    return {"dtype": str(array.dtype), "shape": list(array.shape), "values": array.tolist()}


def _unequal(name: str, want: object, got: object) -> list[str]:
    return [] if want == got else [f"{name}: expected {want!r}, got {got!r}"]


def _values(path: str, want: Any, got: Any, *, approx: bool) -> list[str]:  # noqa: PLR0911 - one return for each kind
    """Compare JSON values. A whole float (3.0) and an int (3) are different values."""
    if type(want) is not type(got):
        return [f"{path}: expected {want!r:.300}, got {got!r:.300}"]
    if isinstance(want, dict):
        if want.keys() != got.keys():
            return [f"{path}: expected the keys {sorted(want)}, got {sorted(got)}"]
        return [line for key in want for line in _values(f"{path}.{key}", want[key], got[key], approx=approx)]
    if isinstance(want, list):
        if len(want) != len(got):
            return [f"{path}: expected {len(want)} elements, got {len(got)}"]
        return [
            line
            for index, (left, right) in enumerate(zip(want, got, strict=True))
            for line in _values(f"{path}[{index}]", left, right, approx=approx)
        ]
    if isinstance(want, float):
        return [] if _floats_agree(want, got, approx=approx) else _unequal(path, want, got)
    return _unequal(path, want, got)


def _floats_agree(want: float, got: float, *, approx: bool) -> bool:
    if math.isnan(want) or math.isnan(got):
        return math.isnan(want) and math.isnan(got)
    if want == got:
        return True
    return approx and math.isclose(want, got, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
