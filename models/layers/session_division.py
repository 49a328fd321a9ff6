"""A user's last events, divided into sessions."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from models.layers.vocabulary_index import FIRST_TERM_INDEX


@keras.saving.register_keras_serializable(package="kestrel")
class SessionDivision(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Puts the latest events of the latest sessions beside one another, the latest of both first.

    Feng et al., Deep Session Interest Network for Click-Through Rate Prediction (IJCAI 2019), "Session Division Layer".
    Padding may stand anywhere between events. The layer has no weights.

    Args:
        sessions: At most so many; earlier ones are left out.
        events: At most so many of each; earlier ones are left out.

    Call arguments:
        events: float32 `[batch_size, length, size]`, the latest first.
        ago: int32 `[batch_size, length]`: indices of sessions, of which the latest has the lowest (`SessionsAgo`).
        known: float32 `[batch_size, length]`: 1 where there is an event.

    Returns:
        float32 `[batch_size, sessions, events, size]`, and zeros where there is no event; and float32
        `[batch_size, sessions, events]`: 1 where there is one.
    """

    def __init__(self, sessions: int, events: int, **options: Any) -> None:
        super().__init__(**{**options, "trainable": False})
        self.sessions, self.events = sessions, events

    def call(self, events: Any, ago: Any, known: Any) -> tuple[Any, Any]:
        """Return the divided events, and where there are some."""
        _, length, size = events.shape
        same = ops.cast(ops.equal(ago[:, :, None], ago[:, None, :]), "float32") * known[:, None, :]
        later_of_session = ops.cast(ops.sum(ops.tril(same, -1), axis=-1), "int32")
        sessions = ops.arange(self.sessions, dtype="int32")[:, None] + FIRST_TERM_INDEX
        in_session = ops.cast(ops.equal(ago[:, None, :], sessions), "float32") * known[:, None, :]
        places = ops.arange(self.events, dtype="int32")[:, None]
        at_place = ops.cast(ops.equal(later_of_session[:, None, :], places), "float32")
        placed = in_session[:, :, None, :] * at_place[:, None, :, :]
        rows = ops.matmul(ops.reshape(placed, (-1, self.sessions * self.events, length)), events)
        return ops.reshape(rows, (-1, self.sessions, self.events, size)), ops.sum(placed, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "sessions": self.sessions, "events": self.events}
