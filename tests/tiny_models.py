"""Tiny SavedModels with what our own never have: outputs without rows, examples, slow graphs, unknown operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SLOW_STEPS = 400
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def export_tiny(folder: Path, factor: float = 2.0) -> None:
    """Export a SavedModel of many signatures; `serving_default`: y = factor * x, of any rank."""
    import tensorflow as tf

    tf1 = tf.compat.v1
    graph = tf1.Graph()
    with graph.as_default(), tf1.Session(graph=graph) as session:
        scale = tf1.get_variable("scale", initializer=factor, use_resource=True)
        x = tf1.placeholder(tf.float32, name="x")
        other = tf1.placeholder(tf.float32, name="other")
        y = tf.multiply(scale, x, name="y")
        examples = tf1.placeholder(tf.string, name="examples")
        features = {"x": tf1.FixedLenFeature([1], tf.float32)}
        parsed = scale * tf1.parse_example(examples, features)["x"]
        more_examples = tf1.placeholder(tf.string, name="more_examples")
        more_parsed = tf1.parse_example(more_examples, features)["x"]
        slow = tf.while_loop(
            lambda step, _: step < SLOW_STEPS,
            lambda step, matrix: (step + 1, tf.tanh(tf.matmul(matrix, matrix))),
            [tf.constant(0), tf.zeros([400, 400]) + tf.reduce_sum(x)],
        )[1]
        text = tf.fill(tf.shape(parsed), "label")
        signature: Any = tf1.saved_model.signature_def_utils.build_signature_def
        signatures = {
            "serving_default": signature(_infos(x=x), _infos(y=y)),
            "sum": signature(_infos(x=x), _infos(total=tf.reduce_sum(x))),
            "first": signature(_infos(x=x), _infos(first=x[:1])),
            "positive": signature(_infos(x=x), _infos(y=tf.identity(_checked(x)))),
            "two": signature(_infos(x=x, other=other), _infos(y=x + other)),
            "slow": signature(_infos(x=x), _infos(y=x + 0.0 * tf.reduce_sum(slow))),
            "classify": signature(_infos(inputs=examples), _infos(classes=text, scores=parsed), CLASSIFY),
            "regress": signature(_infos(inputs=examples), _infos(outputs=parsed), REGRESS),
            "regress_more": signature(_infos(inputs=more_examples), _infos(outputs=more_parsed), REGRESS),
        }
        session.run(tf1.global_variables_initializer())
        builder = tf1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


def _infos(**tensors: Any) -> dict[str, Any]:
    from tensorflow.core.protobuf import meta_graph_pb2

    return {
        name: meta_graph_pb2.TensorInfo(
            name=tensor.name, dtype=tensor.dtype.as_datatype_enum, tensor_shape=tensor.shape.as_proto()
        )
        for name, tensor in tensors.items()
    }


def _checked(x: Any) -> Any:
    import tensorflow as tf

    with tf.control_dependencies([tf.compat.v1.assert_positive(x)]):
        return tf.identity(x)


def use_unknown_operation(folder: Path) -> None:
    """Make the graph use an operation that nobody registered, as a model with a custom operation does."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = folder / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for node in saved_model.meta_graphs[0].graph_def.node:
        if node.name == "y":
            node.op = "KestrelUnknownOperation"
    file.write_bytes(saved_model.SerializeToString())


def name_absent_tensor(folder: Path) -> None:
    """Make the default signature name a tensor that the graph does not have."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = folder / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    saved_model.meta_graphs[0].signature_def["serving_default"].outputs["y"].name = "absent:0"
    file.write_bytes(saved_model.SerializeToString())


def write_warmup(folder: Path, *logs: Any) -> None:
    """Write PredictionLogs as the version's warm-up records."""
    import tensorflow as tf

    file = folder / "assets.extra/tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())
