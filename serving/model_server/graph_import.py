"""GraphDef → tf.Graph, without a long stop of everything else.

TensorFlow holds Python's interpreter while it imports: no request is answered meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_WITHOUT_SHAPES_WITHIN = "_disable_call_shape_inference"
"""TensorFlow's attribute of a call (core/common_runtime/shape_refiner.cc)."""


def import_graph(graph_def: Any, producer_op_list: Any = None) -> None:  # noqa: ANN401 - GraphDef and OpList messages
    """Import `graph_def` into the current default graph, under its own names: each function for itself, then the nodes.

    Calls of functions are marked so that TensorFlow does not work their shapes out through whole bodies. A server needs
    those as little as the real one, whose loader does not look into functions either.

    Raises:
        ValueError: TensorFlow refuses it.
    """
    for piece in _pieces(graph_def):
        tf.graph_util.import_graph_def(piece, name="", producer_op_list=producer_op_list)


def _pieces(graph_def: Any) -> Iterator[Any]:  # noqa: ANN401 - GraphDef messages
    for function in graph_def.library.function:
        piece = graph_pb2.GraphDef(versions=graph_def.versions)
        piece.library.function.append(function)
        yield piece
    nodes = graph_pb2.GraphDef(versions=graph_def.versions, node=graph_def.node)
    nodes.library.gradient.extend(graph_def.library.gradient)
    for node in nodes.node:
        if node.op in _CALLS:
            node.attr[_WITHOUT_SHAPES_WITHIN].b = True
    yield nodes
