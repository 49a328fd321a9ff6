"""An imported graph computes what the original did, and no shapes are worked out that nobody asks for."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from serving.model_server.graph_import import import_graph


def graph_with_calls() -> tf.Graph:
    """Make `out = g(f(x)) + f(x)`, with f and g called as functions, and `done`, which waits for both."""

    @tf.function
    def f(value):
        return tf.sqrt(value) + 1.0

    @tf.function
    def g(value):
        return f(value) * 2.0

    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
        first, second = f(x), g(f(x))
        tf.add(first, second, name="out")
        with tf.control_dependencies([first, second]):
            tf.no_op(name="done")
    return graph


def shape_of_the_call(graph: tf.Graph) -> tf.TensorShape:
    return next(op for op in graph.get_operations() if "PartitionedCall" in op.type).outputs[0].shape


def test_no_shape_is_worked_out_through_a_function():
    graph_def = graph_with_calls().as_graph_def()
    for node in graph_def.node:
        node.attr.pop("_output_shapes", None)
    plain, graph = tf.Graph(), tf.Graph()
    with plain.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    with graph.as_default():
        import_graph(graph_def)
    assert shape_of_the_call(plain).rank == 1  # what takes the time
    assert shape_of_the_call(graph).rank is None


def test_it_computes_what_the_whole_graph_computes():
    graph = tf.Graph()
    with graph.as_default():
        import_graph(graph_with_calls().as_graph_def())
    x = np.array([1.0, 4.0, 9.0], dtype=np.float32)
    with tf.compat.v1.Session(graph=graph) as session:
        out, _ = session.run(["out:0", "done"], {"x:0": x})
    first = np.sqrt(x) + 1
    np.testing.assert_allclose(out, (np.sqrt(first) + 1) * 2 + first, rtol=1e-6)


def test_an_empty_graph_is_no_error():
    graph = tf.Graph()
    with graph.as_default():
        import_graph(tf.Graph().as_graph_def())
    assert graph.get_operations() == []


def test_a_graph_that_tensorflow_refuses_says_why():
    graph_def = graph_with_calls().as_graph_def()
    graph_def.node.add(name="unknown", op="NoSuchOperation")
    with tf.Graph().as_default(), pytest.raises((ValueError, tf.errors.NotFoundError), match="NoSuchOperation"):
        import_graph(graph_def)
