"""The message classes, made at import from the collected descriptors, in a descriptor pool of their own."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from serving.protocol import descriptors


def _load_pool() -> descriptor_pool.DescriptorPool:
    if not descriptors.GENERATED.is_file():
        descriptors.generate()
    pool = descriptor_pool.DescriptorPool()
    for file in FileDescriptorSet.FromString(descriptors.GENERATED.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _load_pool()


def message_class(full_name: str) -> Any:  # noqa: ANN401 - classes made at run time have no static type
    """Return the class of a message by its full protobuf name; KeyError if the protocol has none."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(full_name))


PredictRequest = message_class("tensorflow.serving.PredictRequest")
PredictResponse = message_class("tensorflow.serving.PredictResponse")
GetModelMetadataRequest = message_class("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = message_class("tensorflow.serving.GetModelMetadataResponse")
SignatureDefMap = message_class("tensorflow.serving.SignatureDefMap")
GetModelStatusRequest = message_class("tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse = message_class("tensorflow.serving.GetModelStatusResponse")
ModelVersionStatus = message_class("tensorflow.serving.ModelVersionStatus")
ReloadConfigRequest = message_class("tensorflow.serving.ReloadConfigRequest")
ReloadConfigResponse = message_class("tensorflow.serving.ReloadConfigResponse")
ModelServerConfig = message_class("tensorflow.serving.ModelServerConfig")
ModelConfig = message_class("tensorflow.serving.ModelConfig")
PredictionLog = message_class("tensorflow.serving.PredictionLog")
SavedModel = message_class("tensorflow.SavedModel")
TensorProto = message_class("tensorflow.TensorProto")
TensorShapeProto = message_class("tensorflow.TensorShapeProto")


def _numbers_by_name(enum: str) -> dict[str, int]:
    return {name: value.number for name, value in _POOL.FindEnumTypeByName(enum).values_by_name.items()}


STATES = {number: name for name, number in _numbers_by_name("tensorflow.serving.ModelVersionStatus.State").items()}
"""30 → `AVAILABLE` and so on."""
