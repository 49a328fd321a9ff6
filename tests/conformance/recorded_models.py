"""Build the SavedModels that the conformance cases and scenarios call.

The tree that appears below ``OUTPUT_DIR``::

    models/half_plus_two/1       y = x / 2 + 2   (with classify and regress signatures)
    models/half_plus_two/2       y = x / 2 + 3
    models/ranker/1              string look-up, fixed weights, outputs ``score`` and ``logit``
    models/multi_output_bytes/1  bytes output, variable-length input, one output per dtype
    spare/half_plus_two/3        y = x / 2 + 4   (published by scenarios)
    spare/counter/1              every call adds one to a variable and returns it

Weights, vocabularies and tensor names are constants, so two builds answer alike. The files
themselves are not bit-identical from build to build: TensorFlow puts counters into function names.
The cases therefore never compare a message that quotes a function name.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1

CLASSIFY_METHOD = "tensorflow/serving/classify"
PREDICT_METHOD = "tensorflow/serving/predict"
REGRESS_METHOD = "tensorflow/serving/regress"

HALF_PLUS_TWO_OFFSET = {1: 2.0, 2: 3.0, 3: 4.0}
"""What version N of ``half_plus_two`` adds to ``x / 2``: the answer tells which version gave it."""

USERS = ("u1", "u2", "u3", "ünïcode")
ITEMS = ("i1", "i2", "i3", "i4", "商品")
DENSE_SIZE = 4
EMBEDDING_SIZE = 3

DTYPE_INPUTS: dict[str, tf.DType] = {
    "bool": tf.bool,
    "double": tf.float64,
    "float": tf.float32,
    "int16": tf.int16,
    "int32": tf.int32,
    "int64": tf.int64,
    "int8": tf.int8,
    "string": tf.string,
    "uint8": tf.uint8,
    "uint32": tf.uint32,
    "uint64": tf.uint64,
}
"""The identity signatures of ``multi_output_bytes``: one per dtype, named ``identity_<key>``."""


def build_half_plus_two(folder: Path, version: int) -> None:
    """Write one version of ``half_plus_two``: predict, classify and regress signatures.

    It is written as a graph, not from a ``tf.Module``, since only so can a signature carry the
    method names ``tensorflow/serving/classify`` and ``tensorflow/serving/regress``.
    """
    graph = tf1.Graph()
    with graph.as_default(), tf1.Session(graph=graph) as session:
        slope = tf1.get_variable("a", initializer=0.5, use_resource=True)
        offset = tf1.get_variable("b", initializer=HALF_PLUS_TWO_OFFSET[version], use_resource=True)
        x = tf1.placeholder(tf.float32, name="x")
        y = tf.add(tf.multiply(slope, x), offset, name="y")

        serialized = tf1.placeholder(tf.string, name="tf_example")
        features = tf1.parse_example(
            serialized,
            {
                "x": tf1.FixedLenFeature([1], tf.float32),
                "x2": tf1.FixedLenFeature([1], tf.float32, default_value=[0.0]),
            },
        )
        scores = tf.add(tf.multiply(slope, features["x"]), offset, name="scores")
        labels = tf.where(
            tf.greater(scores, 4.0),
            tf.fill(tf.shape(scores), "high"),
            tf.fill(tf.shape(scores), "low"),
            name="labels",
        )
        value = tf.add(scores, features["x2"], name="value")

        info = tf1.saved_model.utils.build_tensor_info
        signature = tf1.saved_model.signature_def_utils.build_signature_def
        examples = {"inputs": info(serialized)}
        signatures = {
            "serving_default": signature({"x": info(x)}, {"y": info(y)}, PREDICT_METHOD),
            "classify_x": signature(examples, {"classes": info(labels), "scores": info(scores)}, CLASSIFY_METHOD),
            "classify_scores_only": signature(examples, {"scores": info(scores)}, CLASSIFY_METHOD),
            "classify_classes_only": signature(examples, {"classes": info(labels)}, CLASSIFY_METHOD),
            "regress_x": signature(examples, {"outputs": info(scores)}, REGRESS_METHOD),
            "regress_x_plus_x2": signature(examples, {"outputs": info(value)}, REGRESS_METHOD),
        }
        session.run(tf1.global_variables_initializer())
        builder = tf1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session, [tf1.saved_model.tag_constants.SERVING], signature_def_map=signatures
        )
        builder.save()


def _table(vocabulary: tuple[str, ...]) -> tf.lookup.StaticHashTable:
    """Map each word to 1, 2, ...; an unknown word to 0."""
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(vocabulary), tf.constant(range(1, len(vocabulary) + 1), tf.int64)
        ),
        default_value=0,
    )


def _weights(rows: int, columns: int, phase: float) -> np.ndarray:
    """Return ``[rows, columns]`` weights from a formula, so no generator's seed is involved."""
    grid = np.arange(rows * columns, dtype=np.float64).reshape(rows, columns)
    return np.sin(grid + phase).astype(np.float32)


class Ranker(tf.Module):
    """Dot product of two looked-up embeddings plus a linear term of the dense features."""

    def __init__(self) -> None:
        """Create the tables and the weights; row 0 of an embedding stands for unknown ids."""
        super().__init__(name="ranker")
        self.user_table = _table(USERS)
        self.item_table = _table(ITEMS)
        self.user_embedding = tf.Variable(_weights(len(USERS) + 1, EMBEDDING_SIZE, 0.25))
        self.item_embedding = tf.Variable(_weights(len(ITEMS) + 1, EMBEDDING_SIZE, 1.5))
        self.dense_weight = tf.Variable(_weights(DENSE_SIZE, 1, 0.75))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="user_id"),
            tf.TensorSpec([None], tf.string, name="item_id"),
            tf.TensorSpec([None, DENSE_SIZE], tf.float32, name="dense"),
        ]
    )
    def rank(self, user_id: tf.Tensor, item_id: tf.Tensor, dense: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return ``score`` and ``logit``, both ``[batch]``."""
        user = tf.gather(self.user_embedding, self.user_table.lookup(user_id))
        item = tf.gather(self.item_embedding, self.item_table.lookup(item_id))
        logit = tf.reduce_sum(user * item, axis=1) + tf.squeeze(tf.matmul(dense, self.dense_weight), axis=1)
        return {"score": tf.sigmoid(logit), "logit": logit}


class MultiOutputBytes(tf.Module):
    """String, integer and nested outputs; variable-length input; an identity per dtype."""

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.string, name="tokens")])
    def join(self, tokens: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the joined row as bytes and as text, and the number of tokens that are not ''."""
        joined = tf.strings.reduce_join(tokens, axis=1, separator="|")
        present = tf.cast(tf.not_equal(tokens, ""), tf.int64)
        return {
            "joined_bytes": joined,
            "joined_text": joined,
            "count": tf.reduce_sum(present, axis=1),
            "present": present,
        }

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int64, name="values")])
    def total(self, values: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the sum of each row as int32, alone: a single unnamed output in REST."""
        return {"total": tf.cast(tf.reduce_sum(values, axis=1), tf.int32)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def scalar(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return a batch output beside one without a batch dimension."""
        return {"doubled": x * 2.0, "sum": tf.reduce_sum(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="data")])
    def raw(self, data: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return what came in, as a bytes output alone."""
        return {"data_bytes": tf.identity(data)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    def half_scalar(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Take and return a tensor of rank 0."""
        return {"y": x / 2.0}

    @tf.function(input_signature=[tf.TensorSpec([None, 2, 2], tf.float32, name="m")])
    def cube(self, m: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return ``m * 2``: a tensor of rank 3."""
        return {"m2": m * 2.0}


def _identity(dtype: tf.DType) -> tf.types.experimental.GenericFunction:
    """Return a traced function from ``value`` to ``same``, both ``[batch]`` of ``dtype``."""

    @tf.function(input_signature=[tf.TensorSpec([None], dtype, name="value")])
    def identity(value: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"same": tf.identity(value)}

    return identity


class Counter(tf.Module):
    """Counts its calls: a warm-up that was executed is seen in the first answer."""

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__(name="counter")
        self.calls = tf.Variable(0, dtype=tf.int64)

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64, name="step")])
    def count(self, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Add ``step`` and return the new total."""
        return {"calls": self.calls.assign_add(step)}


def _save(module: tf.Module, folder: Path, signatures: dict[str, object]) -> None:
    tf.saved_model.save(
        module,
        str(folder),
        signatures=signatures,
        options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )


def build_all(output: Path) -> None:
    """Write the whole tree below ``output``, replacing one that is there."""
    for name in ("models", "spare"):
        shutil.rmtree(output / name, ignore_errors=True)
    build_half_plus_two(output / "models/half_plus_two/1", 1)
    build_half_plus_two(output / "models/half_plus_two/2", 2)
    build_half_plus_two(output / "spare/half_plus_two/3", 3)

    ranker = Ranker()
    _save(ranker, output / "models/ranker/1", {"serving_default": ranker.rank})

    multi = MultiOutputBytes()
    signatures: dict[str, object] = {
        "serving_default": multi.join,
        "total": multi.total,
        "scalar": multi.scalar,
        "raw": multi.raw,
        "half_scalar": multi.half_scalar,
        "cube": multi.cube,
    }
    for key, dtype in DTYPE_INPUTS.items():
        signatures[f"identity_{key}"] = _identity(dtype)
    _save(multi, output / "models/multi_output_bytes/1", signatures)

    counter = Counter()
    _save(counter, output / "spare/counter/1", {"serving_default": counter.count})


if __name__ == "__main__":
    build_all(Path(sys.argv[1]))
