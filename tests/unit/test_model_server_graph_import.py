"""A graph that is imported in pieces is the same graph; what cannot be divided is imported whole."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from serving.model_server.graph_import import _pieces, import_graph


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


def calls_of(piece) -> int:
    return sum(node.op in {"PartitionedCall", "StatefulPartitionedCall"} for node in piece.node)


def test_each_call_is_a_piece_and_nothing_is_lost():
    graph_def = graph_with_calls().as_graph_def()
    pieces = _pieces(graph_def)
    assert [calls_of(piece) for piece in pieces] == [0, 1, 1, 1, 0]
    assert all(len(piece.node) == 1 for piece in pieces if calls_of(piece))
    assert sorted(node.name for piece in pieces for node in piece.node) == sorted(n.name for n in graph_def.node)


def test_it_computes_what_the_whole_graph_computes():
    graph = tf.Graph()
    with graph.as_default():
        import_graph(graph_with_calls().as_graph_def())
    x = np.array([1.0, 4.0, 9.0], dtype=np.float32)
    with tf.compat.v1.Session(graph=graph) as session:
        out, _ = session.run(["out:0", "done"], {"x:0": x})
    first = np.sqrt(x) + 1
    np.testing.assert_allclose(out, (np.sqrt(first) + 1) * 2 + first, rtol=1e-6)


def test_a_loop_is_imported_whole():
    graph = tf.Graph()
    with graph.as_default():
        tf.compat.v1.disable_control_flow_v2()
        try:
            last = tf.compat.v1.while_loop(lambda i: i < 10, lambda i: (i + 1,), [tf.constant(0)])
        finally:
            tf.compat.v1.enable_control_flow_v2()
        tf.identity(last, name="last")
    graph_def = graph.as_graph_def()
    assert any(node.op == "NextIteration" for node in graph_def.node)
    assert _pieces(graph_def) == [graph_def]
    again = tf.Graph()
    with again.as_default():
        import_graph(graph_def)
    with tf.compat.v1.Session(graph=again) as session:
        assert session.run("last:0") == 10


@pytest.mark.parametrize("kind", ["silent", "colocated"])
def test_what_must_be_in_sight_is_imported_whole(kind):
    graph = graph_with_calls()
    with graph.as_default():
        if kind == "silent":  # waits for an operation without outputs, and for a call: never in one piece
            with tf.control_dependencies([graph.get_operation_by_name("done")]):
                tf.no_op(name="later")
            call = next(
                op for op in graph.get_operations() if op.type in {"PartitionedCall", "StatefulPartitionedCall"}
            )
            silent = tf.no_op(name="early")
            with tf.control_dependencies([silent, call]):
                tf.no_op(name="both")
        else:
            with tf.compat.v1.colocate_with(graph.get_operation_by_name("x")):
                tf.constant(1.0, name="beside")
    graph_def = graph.as_graph_def()
    assert len(_pieces(graph_def)) == 1
    again = tf.Graph()
    with again.as_default():
        import_graph(graph_def)
    assert {op.name for op in again.get_operations()} == {node.name for node in graph_def.node}


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
