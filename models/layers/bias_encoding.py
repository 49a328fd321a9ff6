"""What a place in a session, a session, and a dimension add to every event."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="kestrel")
class BiasEncoding(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Adds to each number of each event the biases of its session, of its place in it, and of its dimension.

    Feng et al., Deep Session Interest Network for Click-Through Rate Prediction (IJCAI 2019), "Session Interest
    Extractor Layer": `BE(k, t, c) = w_k + w_t + w_c`, each w a learned number.

    Call arguments:
        events: float32 `[batch_size, sessions, events, size]`.

    Returns:
        float32 of the same shape.
    """

    def build(self, shape: tuple[int | None, int, int, int]) -> None:
        """Make the biases."""
        _, sessions, events, size = shape
        start = keras.initializers.RandomNormal(stddev=0.01)
        self.of_session = self.add_weight(shape=(sessions, 1, 1), initializer=start, name="of_session")
        self.of_place = self.add_weight(shape=(events, 1), initializer=start, name="of_place")
        self.of_dimension = self.add_weight(shape=(size,), initializer=start, name="of_dimension")

    def call(self, events: Any) -> Any:
        """Return the sum."""
        return events + self.of_session + self.of_place + self.of_dimension
