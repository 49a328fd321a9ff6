"""Collects the protocol's descriptors from the installed wheels, without importing them.

No wheel ships the .proto files, but each generated `_pb2.py` holds its file's serialized descriptor as one bytes
literal. Reading the literal from the source keeps it unchanged to the byte, and spares importing TensorFlow (seconds,
400 MB).
"""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from feature_repo.contracts.publishing import replacing
from serving.protocol.errors import ProtocolMissingError

GENERATED = Path(__file__).parent / "_generated" / "tensorflow_serving.binpb"
"""A serialized FileDescriptorSet, each file after those that it imports."""

ROOTS = (
    "tensorflow_serving/apis/prediction_service.proto",
    "tensorflow_serving/apis/model_service.proto",
    "tensorflow_serving/apis/prediction_log.proto",
    "tensorflow_serving/config/model_server_config.proto",
    "tensorflow/core/protobuf/saved_model.proto",
)
"""Whatever these import comes along."""

_MOVED = {"xla/": "tensorflow/compiler/xla/"}
"""Where TensorFlow's wheel keeps the modules of .proto files that name themselves by another path."""


def generate(target: Path = GENERATED) -> int:
    """Write the descriptor set to `target` and return the number of files in it.

    Raises:
        ProtocolMissingError: `tensorflow-serving-api` or `tensorflow` is not installed.
    """
    collected: dict[str, FileDescriptorProto] = {}
    for root in ROOTS:
        _collect(root, collected)
    with replacing(target) as part:
        part.write_bytes(FileDescriptorSet(file=collected.values()).SerializeToString(deterministic=True))
    return len(collected)


def _collect(name: str, collected: dict[str, FileDescriptorProto]) -> None:
    if name in collected:
        return
    file = FileDescriptorProto.FromString(_serialized_descriptor(_module_source(name)))
    for dependency in file.dependency:
        _collect(dependency, collected)
    collected[name] = file


def _module_source(name: str) -> Path:
    """Return the `_pb2.py` of a .proto file; only the top package is looked up, and that imports nothing."""
    for prefix, place in _MOVED.items():
        if name.startswith(prefix):
            name = place + name.removeprefix(prefix)
    top, _, rest = name.partition("/")
    module = rest.removesuffix(".proto").replace("-", "_") + "_pb2.py"
    if top == "google":
        import google.protobuf  # noqa: PLC0415 - a namespace package: only its protobuf part has a place

        return Path(google.protobuf.__path__[0]) / module.removeprefix("protobuf/")
    spec = find_spec(top)
    for location in spec.submodule_search_locations or () if spec else ():
        path = Path(location) / module
        if path.is_file():
            return path
    msg = (
        f"protocol file {name}: expected it in the installed wheel of {top!r}, which has none; "
        "install the extra 'model-server' and run `python -m serving.protocol generate`"
    )
    raise ProtocolMissingError(msg)


def _serialized_descriptor(source: Path) -> bytes:
    """Return the bytes literal that the module hands to `AddSerializedFile`."""
    for node in ast.walk(ast.parse(source.read_bytes())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "AddSerializedFile"
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, bytes)
        ):
            return node.args[0].value
    msg = f"{source}: expected a call of AddSerializedFile with a bytes literal; this protobuf release generates others"
    raise ProtocolMissingError(msg)
