"""The light client's messages are TensorFlow Serving's, to the byte, and live beside TensorFlow in one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from serving.protocol import descriptors
from serving.protocol.client import predict_request, read_outputs

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_descriptors_are_unchanged(tmp_path: Path) -> None:
    from tensorflow_serving.apis import model_service_pb2, predict_pb2
    from tensorflow_serving.config import model_server_config_pb2

    target = tmp_path / "protocol.binpb"
    count = descriptors.generate(target)
    files = {file.name: file for file in FileDescriptorSet.FromString(target.read_bytes()).file}
    assert len(files) == count
    for module in (model_service_pb2, predict_pb2, model_server_config_pb2):
        assert files[module.DESCRIPTOR.name].SerializeToString() == module.DESCRIPTOR.serialized_pb
    before = target.read_bytes()
    descriptors.generate(target)
    assert target.read_bytes() == before


def test_tensorflow_reads_what_the_light_client_writes_and_the_other_way_round() -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    inputs = {"text": np.array(["a", "ü"], dtype=object), "count": np.arange(4, dtype=np.int64).reshape(2, 2)}
    light = predict_request("m", inputs, version=3, signature_name="one_user", outputs=["score"])
    heavy = predict_pb2.PredictRequest.FromString(light.SerializeToString())
    assert (heavy.model_spec.name, heavy.model_spec.version.value, list(heavy.output_filter)) == ("m", 3, ["score"])
    np.testing.assert_array_equal(tf.make_ndarray(heavy.inputs["count"]), inputs["count"])
    assert tf.make_ndarray(heavy.inputs["text"]).tolist() == [b"a", "ü".encode()]
    response = predict_pb2.PredictResponse()
    response.outputs["score"].CopyFrom(tf.make_tensor_proto([0.5, 0.25]))
    from serving.protocol.messages import PredictResponse

    outputs = read_outputs(PredictResponse.FromString(response.SerializeToString()))
    assert outputs["score"].tolist() == [0.5, 0.25]


def test_the_light_client_imports_no_tensorflow() -> None:
    code = (
        "import sys, serving.protocol.client, serving.rollout.promote, serving.rollout.status\n"
        "assert not {'tensorflow', 'tensorflow_serving'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
