"""GraphDef → tf.Graph, one function call at a time.

TensorFlow holds Python's interpreter while it imports nodes, and works the shapes of every call of a function out
through its whole body. No request is answered meanwhile; in pieces, requests get their turn between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.python.framework import op_def_registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_COLOCATION = "_class"


def import_graph(graph_def: Any, producer_op_list: Any = None) -> None:  # noqa: ANN401 - GraphDef and OpList messages
    """Import `graph_def` into the current default graph, under its own names.

    Raises:
        ValueError: TensorFlow refuses it.
    """
    for piece in _pieces(graph_def):
        tf.graph_util.import_graph_def(
            piece, input_map=_inputs_from_before(piece), name="", producer_op_list=producer_op_list
        )


def _pieces(graph_def: Any) -> list[Any]:  # noqa: ANN401 - a GraphDef message
    """Divide a graph so that each piece needs only those before it, and each call of a function is one of its own.

    The first has the functions. One piece, the graph itself, where it cannot be divided: nodes that go round in a
    circle (loops of TensorFlow 1), that must stand on the device of another, or that wait for one without outputs in an
    earlier piece, which TensorFlow has no way to name.
    """
    if any(_COLOCATION in node.attr for node in graph_def.node):
        return [graph_def]
    groups = list(_groups({node.name: node for node in graph_def.node}))
    if sum(map(len, groups)) != len(graph_def.node) or _waits_for_a_silent_one(groups):
        return [graph_def]
    pieces = []
    for group in groups:
        piece = graph_pb2.GraphDef(versions=graph_def.versions)
        piece.node.extend(group)
        pieces.append(piece)
    if not pieces:
        return [graph_def]
    pieces[0].library.CopyFrom(graph_def.library)
    return pieces


def _groups(nodes: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield nodes in an order in which each comes after its inputs; calls alone, everything else as early as it can be.

    What is part of a circle, or hangs on one, is left out.
    """
    waiting = {name: {_source(text) for text in node.input} for name, node in nodes.items()}
    users: dict[str, list[str]] = {}
    for name, sources in waiting.items():
        for source in sources:
            users.setdefault(source, []).append(name)
    ready = [name for name, sources in waiting.items() if not sources]
    while ready:
        group: list[Any] = []
        calls: list[str] = []
        while ready:
            name = ready.pop()
            if nodes[name].op in _CALLS:
                calls.append(name)
                continue
            group.append(nodes[name])
            ready += _freed(name, users, waiting)
        if group:
            yield group
        for name in sorted(calls):
            yield [nodes[name]]
            ready += _freed(name, users, waiting)


def _waits_for_a_silent_one(groups: list[list[Any]]) -> bool:
    place = {node.name: number for number, group in enumerate(groups) for node in group}
    silent = {node.name for group in groups for node in group if not _has_outputs(node)}
    return any(
        text.startswith("^") and _source(text) in silent and place[_source(text)] < number
        for number, group in enumerate(groups)
        for node in group
        for text in node.input
    )


def _has_outputs(node: Any) -> bool:  # noqa: ANN401 - a NodeDef
    if "Tout" in node.attr:
        return bool(node.attr["Tout"].list.type)
    definition = op_def_registry.get(node.op)
    return definition is not None and bool(definition.output_arg)


def _freed(name: str, users: Mapping[str, list[str]], waiting: Mapping[str, set[str]]) -> list[str]:
    freed = []
    for user in users.get(name, ()):
        waiting[user].discard(name)
        if not waiting[user]:
            freed.append(user)
    return freed


def _source(text: str) -> str:
    """Return the node that an input names: `^node`, `node` or `node:1`."""
    return text.removeprefix("^").partition(":")[0]


def _inputs_from_before(piece: Any) -> dict[str, tf.Tensor]:  # noqa: ANN401 - a GraphDef message
    graph = tf.compat.v1.get_default_graph()
    here = {node.name for node in piece.node}
    found: dict[str, tf.Tensor] = {}
    for text in {text for node in piece.node for text in node.input if _source(text) not in here}:
        operation = graph.get_operation_by_name(_source(text))
        found[text] = operation.outputs[0 if text.startswith("^") else int(text.partition(":")[2] or 0)]
    return found
