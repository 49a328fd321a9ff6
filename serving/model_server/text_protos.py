"""The server's own configuration files in protobuf text format: MonitoringConfig and BatchingParameters.

No wheel ships these two messages, so they are declared here, by name and type of their fields; text format knows no
field numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

from serving.model_server.errors import ServerStartError

_FIELD = descriptor_pb2.FieldDescriptorProto
_INT64, _BOOL, _STRING = (f".google.protobuf.{name}Value" for name in ("Int64", "Bool", "String"))
_MESSAGES: dict[str, dict[str, str | int]] = {
    "PrometheusConfig": {"enable": _FIELD.TYPE_BOOL, "path": _FIELD.TYPE_STRING},
    "MonitoringConfig": {"prometheus_config": ".kestrel.PrometheusConfig"},
    "BatchingParameters": {
        "max_batch_size": _INT64,
        "batch_timeout_micros": _INT64,
        "max_enqueued_batches": _INT64,
        "num_batch_threads": _INT64,
        "thread_pool_name": _STRING,
        "allowed_batch_sizes": -_FIELD.TYPE_INT64,
        "pad_variable_length_inputs": _FIELD.TYPE_BOOL,
        "enable_large_batch_splitting": _BOOL,
        "max_execution_batch_size": _INT64,
    },
}
"""Message → field → a message's name, a scalar type, or the negative of the type of a repeated scalar."""


def _declared() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="kestrel/text_protos.proto",
        package="kestrel",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields.items(), 1):
            field = declared.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL)
            if isinstance(kind, str):
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, kind
            elif kind < 0:
                field.type, field.label = -kind, _FIELD.LABEL_REPEATED  # type: ignore[assignment] # an enum's number
            else:
                field.type = kind  # type: ignore[assignment] # an enum's number
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _declared()
MonitoringConfig: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("kestrel.MonitoringConfig"))
BatchingParameters: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("kestrel.BatchingParameters"))


def read_text_proto(path: str | Path, message_class: Any) -> Any:  # noqa: ANN401 - message classes
    """Return the message that a file in protobuf text format holds.

    Raises:
        ServerStartError: There is no such file, or it is no such message; the message names file, line and column.
    """
    name = message_class.DESCRIPTOR.name
    try:
        return text_format.Parse(Path(path).read_text(encoding="utf-8"), message_class())
    except (OSError, UnicodeDecodeError) as error:
        msg = f"Cannot read {path}: expected a {name} in protobuf text format: {error}; mend the file or the flag"
        raise ServerStartError(msg) from error
    except text_format.ParseError as error:
        msg = f"Invalid protobuf file: '{path}': expected a {name} in text format: {error}; mend the file"
        raise ServerStartError(msg) from error
