"""A Keras graph for one user and many candidates: what depends on the user alone is computed of one row.

Nobody who writes a model has to say which part that is: it follows from the graph's inputs. An operation all of whose
inputs are the user's sees one row; where it meets anything else, the row is stood beside every candidate first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from models.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping


def call_for_one_user(
    model: keras.Model, columns: Mapping[str, tf.Tensor], of_user: Collection[str], num_candidates: tf.Tensor
) -> tf.Tensor:
    """Return what `model` returns, in inference, where the user's columns are repeated for every candidate.

    A model that is no functional model of Keras counts as one operation; one within the model is looked into if it
    takes columns by name, too.

    Args:
        model: A keras.Model of columns by name.
        columns: Column → its values: `[1, ...]` of the user, `[num_candidates, ...]` of all else.
        of_user: The user's columns.
        num_candidates: Scalar.

    Raises:
        ExportError: An input of the model is no column.
    """
    beside = _Beside(num_candidates)
    result, is_of_user = _called(model, columns, of_user, beside)
    return beside(result) if is_of_user else result


def _called(
    model: keras.Model, columns: Mapping[str, tf.Tensor], of_user: Collection[str], beside: _Beside
) -> tuple[tf.Tensor, bool]:
    """Return what a model returns, and whether that is one row of the user."""
    if not isinstance(model, keras.Function):
        rows = {name: beside(value) if name in of_user else value for name, value in columns.items()}
        return model(rows, training=False), False
    if unknown := sorted({each.name for each in model.inputs} - columns.keys()):
        msg = f"model {model.name}: expected inputs among the encoded columns {sorted(columns)}, received {unknown}"
        raise ExportError(msg)
    values = {id(each): columns[each.name] for each in model.inputs}
    """Symbolic tensor → what it is here; those of the user have one row."""
    users = {id(each) for each in model.inputs if each.name in of_user}
    with tf.name_scope(model.name):  # as Keras does: by itself, a layer's name may be none that TensorFlow takes
        for node in _nodes(model):
            if (given := _named(node)) is not None:
                inputs = {name: values[id(each)] for name, each in given.items()}
                own = {name for name, each in given.items() if id(each) in users}
                (made,) = map(id, node.outputs)
                values[made], is_of_user = _called(node.operation, inputs, own, beside)
                users |= {made} if is_of_user else set()
                continue
            ids = [id(each) for each in node.input_tensors]
            if users.issuperset(ids) and _has_rows(node.outputs, None):
                results = _run(node, values)
                if _has_rows(results, 1):
                    values.update(zip(map(id, node.outputs), results, strict=True))
                    users.update(map(id, node.outputs))
                    continue
            results = _run(node, {i: beside(values[i]) if i in users else values[i] for i in ids})
            values.update(zip(map(id, node.outputs), results, strict=True))
    (output,) = map(id, model.outputs)
    return values[output], output in users


class _Beside:
    """Stands a row beside every candidate; each tensor once, however many operations ask for it."""

    def __init__(self, num_candidates: tf.Tensor) -> None:
        self._num_candidates = num_candidates
        self._done: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}

    def __call__(self, row: tf.Tensor) -> tf.Tensor:
        """Return `[num_candidates, ...]` of `[1, ...]`, with the mask that Keras hangs on a tensor."""
        if id(row) not in self._done:
            rows = self._tile(row)
            if (mask := getattr(row, "_keras_mask", None)) is not None:
                rows._keras_mask = self._tile(mask)  # noqa: SLF001 - there is no other way to pass a mask on
            self._done[id(row)] = row, rows
        return self._done[id(row)][1]

    def _tile(self, row: tf.Tensor) -> tf.Tensor:
        return tf.tile(row, tf.stack([self._num_candidates, *[1] * (len(row.shape) - 1)]))


def _named(node: Any) -> Mapping[str, Any] | None:
    """Return the columns of a call of a model that takes them by name and returns one tensor; None of any other."""
    is_model = isinstance(node.operation, keras.Function) and len(node.outputs) == 1
    (given, *others) = node.arguments.args or (None,)
    return given if is_model and isinstance(given, dict) and not others else None


def _nodes(model: keras.Function) -> Iterator[Any]:
    """Yield the calls of operations that make up a graph, each after those that it depends on."""
    by_depth = model._nodes_by_depth  # noqa: SLF001 - `operations` does not say which calls of a shared layer are the model's
    for depth in sorted(by_depth, reverse=True):
        yield from (node for node in by_depth[depth] if not node.is_input)


def _run(node: Any, values: Mapping[int, tf.Tensor]) -> list[tf.Tensor]:
    """Call a node's operation, in inference, and return all that it returns."""
    args, kwargs = node.arguments.fill_in(values)
    if "training" in getattr(node.operation, "_call_context_args", ()):  # as Keras asks
        kwargs = {**kwargs, "training": False}
    results: list[tf.Tensor] = keras.tree.flatten(node.operation(*args, **kwargs))
    return results


def _has_rows(tensors: list[Any], rows: int | None) -> bool:
    """Tell whether the first axis is the batch: unknown while a model is built, and of one row here.

    Where it is not, as where columns are stacked along a new first axis, or a list's places become rows, a repeated
    row would be something else than the row repeated.
    """
    shapes = [tf.TensorShape(each.shape) for each in tensors]
    return all(shape.rank and shape[0] == rows for shape in shapes)
