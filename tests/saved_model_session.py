"""A SavedModel as the model server restores it: into a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def answers(directory: Path, requests: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield golden requests with the scores that the SavedModel gives."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(directory)).signature_def
        for request in requests:
            signature = signatures[request["signature_name"]]
            feeds = {tensor.name: request["inputs"][name] for name, tensor in signature.inputs.items()}
            yield request, session.run(signature.outputs["score"].name, feeds)
