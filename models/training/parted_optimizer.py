"""One optimiser for a part of a model, another for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class PartedOptimizer(keras.optimizers.Optimizer):  # type: ignore[misc]  # keras has no types
    """Applies one optimiser to the weights that belong to a part, and another to all others.

    Args:
        part: Of the weights that belong.
        rest: Of the others; its learning rate is that of the whole.
        belongs: Tells by a weight's path, such as `item_id_wide/embeddings`.
    """

    def __init__(self, part: Any, rest: Any, belongs: Callable[[str], bool]) -> None:
        super().__init__(learning_rate=0.0)
        self._part, self._rest = part, rest
        self._belongs = belongs

    def build(self, variables: Sequence[Any]) -> None:
        """Let each optimiser make what it keeps of its weights."""
        super().build(variables)
        for optimizer, own in self._parted(variables, variables):
            optimizer.build([variable for _, variable in own])

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Let each optimiser take a step on its weights."""
        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        if not self.built:
            self.build(variables)
        for optimizer, own in self._parted(grads, variables):
            if own:
                optimizer.apply([gradient for gradient, _ in own], [variable for _, variable in own])
        self._iterations.assign_add(1)

    def _parted(self, values: Sequence[Any], variables: Sequence[Any]) -> list[tuple[Any, list[tuple[Any, Any]]]]:
        """Return each optimiser with the values, beside the weights that they are of, that are its own."""
        pairs = list(zip(values, variables, strict=True))
        parts: list[tuple[Any, list[tuple[Any, Any]]]] = [
            (optimizer, [pair for pair in pairs if self._belongs(pair[1].path) is of_part])
            for optimizer, of_part in ((self._part, True), (self._rest, False))
        ]
        return parts
