"""tf.Example: from JSON features, and out of the Input of Classify and Regress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tensorflow.core.example import example_pb2

from serving.model_server.errors import invalid
from serving.model_server.json_text import decode_base64, is_base64_object, type_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST_INT64 = 2**63 - 1
_KINDS = {"int64_list": "int64", "float_list": "float", "bytes_list": "bytes"}


def serialized_examples(examples: Any) -> NDArray[Any]:  # noqa: ANN401 - an Input message
    """Return the serialized examples of an Input, `[examples]`; a context is merged under each, which wins.

    Raises:
        ServingError: There is no example.
    """
    match examples.WhichOneof("kind"):
        case "example_list":
            serialized = [example.SerializeToString() for example in examples.example_list.examples]
        case "example_list_with_context":
            context = examples.example_list_with_context.context.SerializeToString()
            # Concatenated messages parse as merged ones, and of a map's equal keys the last wins.
            serialized = [
                context + example.SerializeToString() for example in examples.example_list_with_context.examples
            ]
        case _:
            serialized = []
    if not serialized:
        msg = "Input is empty."
        raise invalid(msg)
    array = np.empty(len(serialized), dtype=object)
    array[:] = serialized
    return array


def example_from_json(features: object) -> example_pb2.Example:
    """Return the example of a JSON object: name → value or list of values of one type.

    Raises:
        ServingError: It is no object, or a feature holds something else than numbers, text and base64 objects.
    """
    if not isinstance(features, dict):
        msg = f"Example must be JSON object but got JSON {type_name(features)}"
        raise invalid(msg)
    example = example_pb2.Example()
    for name, value in features.items():
        feature = example.features.feature[name]
        for element in value if isinstance(value, list) else [value]:
            _add(feature, name, element)
    return example


def _add(feature: Any, name: str, value: object) -> None:  # noqa: ANN401 - a Feature message
    kind, element = _feature_value(name, value)
    present = feature.WhichOneof("kind")
    if present not in {None, kind}:
        msg = f"Unexpected element type in feature: {name} expecting type: {_KINDS[present]}"
        raise invalid(msg)
    getattr(feature, kind).value.append(element)


def _feature_value(name: str, value: object) -> tuple[str, bool | float | bytes]:
    if isinstance(value, bool):
        return "int64_list", int(value)
    if isinstance(value, int):
        if value > _LARGEST_INT64:
            msg = f"Feature: {name} has uint64 element. Only int64 is supported."
            raise invalid(msg)
        return "int64_list", value
    if isinstance(value, float):
        return "float_list", value
    if isinstance(value, str):
        return "bytes_list", value.encode("utf-8", "surrogateescape")
    if is_base64_object(value):
        return "bytes_list", decode_base64(value)
    msg = f"Feature: {name} has element with unexpected JSON type: {type_name(value)}"
    raise invalid(msg)
