"""The signature `explain`: what each input of a row adds to its score.

Inputs are put in the place of their missing values one after another, once in their order and once in the reverse; an
input's contribution is the mean of what its two steps change. That is one pair of antithetic permutations of Shapley
values (Mitchell et al., Sampling Permutations for Shapley Value Estimation, JMLR 2022): contributions always add up to
the difference from a row without any input, and are the exact Shapley values wherever inputs act alone or in pairs.

It asks the function of `serving_default`, and so costs a call of twice as many rows as there are inputs, whatever the
model is; nothing of the model is traced or stored a second time. Rows take turns: many take time, and no more memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from feature_repo.contracts.columns import Dtype
from feature_repo.contracts.on_demand import REQUEST_TIME
from feature_repo.contracts.signatures import EXPLAIN_SIGNATURE
from models.inputs import tensor_specs

if TYPE_CHECKING:
    from collections.abc import Callable

    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.signatures import Signature

CONTRIBUTIONS, BASELINE = "contributions", "baseline"
_AT_ONCE = 2_000
"""Rows that the function of `serving_default` is asked at most at a time, unless one row's steps are more."""
_TINY = 1e-7
"""A probability is kept this far from 0 and 1: float32 knows none between."""


def explain(score: Callable[..., dict[str, tf.Tensor]], signature: Signature) -> Any:
    """Return the traced function.

    It takes what `serving_default` takes, and returns `contributions`, `[batch, inputs]`, in the order of the stored
    signature's inputs, and `baseline`, `[batch]`. Both are in log odds where the score is a probability, and on the
    score's own scale else. The request's time stays, as no request is without one, and contributes nothing by itself.

    Args:
        score: The function of `serving_default`.
        signature: What the model takes.
    """
    inputs = len(signature.input_columns)
    turn = max(1, _AT_ONCE // len(_steps(inputs)))

    def call(**columns: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.shape(next(iter(columns.values())))[0]
        turns = (rows + turn - 1) // turn
        parts = {
            CONTRIBUTIONS: tf.TensorArray(tf.float32, turns, infer_shape=False, element_shape=(None, inputs)),
            BASELINE: tf.TensorArray(tf.float32, turns, infer_shape=False, element_shape=(None,)),
        }

        def explained(place: tf.Tensor, parts: dict[str, tf.TensorArray]) -> tuple[tf.Tensor, Any]:
            mine = {name: values[place * turn : (place + 1) * turn] for name, values in columns.items()}
            found = _contributions(score, signature, mine)
            return place + 1, {name: part.write(place, found[name]) for name, part in parts.items()}

        _, parts = tf.while_loop(lambda place, _: place < turns, explained, (0, parts), parallel_iterations=1)
        return {name: part.concat() for name, part in parts.items()}

    return tf.function(call, autograph=False).get_concrete_function(**tensor_specs(signature, EXPLAIN_SIGNATURE))


def _contributions(
    score: Callable[..., dict[str, tf.Tensor]], signature: Signature, columns: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    names = [column.name for column in signature.input_columns]
    there = _steps(len(names))
    blanked = {
        column.name: _blanked(columns[column.name], column, there[:, place])
        for place, column in enumerate(signature.input_columns)
    }
    scores = score(**blanked)[signature.output.name]
    if signature.objective.probability:
        probabilities = tf.clip_by_value(scores, _TINY, 1 - _TINY)
        scores = tf.math.log(probabilities) - tf.math.log1p(-probabilities)
    by_step = tf.reshape(scores, [2, len(names) + 1, -1])
    forward, backward = tf.unstack(by_step[:, 1:] - by_step[:, :-1])
    contributions = (forward + tf.reverse(backward, [0])) / 2
    return {CONTRIBUTIONS: tf.transpose(contributions), BASELINE: by_step[0, 0]}


def _steps(inputs: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which inputs each step has, `[2 * (inputs + 1), inputs]`: from the first on, then from the last."""
    forward = np.arange(inputs) < np.arange(inputs + 1)[:, None]
    return np.concatenate([forward, forward[:, ::-1]])


def _blanked(values: tf.Tensor, column: Column, there: Any) -> tf.Tensor:
    """Return a column of all steps' rows, `[steps * batch, ...]`: its values, or its missing value."""
    steps, rank = len(there), len(values.shape)
    repeated = tf.tile(values, [steps, *[1] * (rank - 1)])
    if column.name == REQUEST_TIME.name:
        return repeated
    missing = column.missing
    if missing is None:
        missing = "" if column.dtype is Dtype.STRING else 0
    rows = tf.repeat(tf.constant(there), tf.shape(values)[0])
    return tf.where(tf.reshape(rows, [-1, *[1] * (rank - 1)]), repeated, tf.constant(missing, values.dtype))
