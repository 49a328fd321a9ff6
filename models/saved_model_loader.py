"""How MLflow loads a SavedModel that takes raw columns: it travels with the logged model, and imports nothing of here.

`mlflow.pyfunc.load_model("models:/<name>@champion").predict(frame)` takes a data frame with a column per
input (lists for list columns) and returns the scores.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SIGNATURE = "serving_default"
OUTPUT = "score"
_BATCH = 16_384


def load_saved_model(directory: Path) -> Any:
    """Load what `tf.saved_model.save` wrote.

    TensorFlow looks for the variables by a pattern, and finds none below a folder `[1]`: it is told a plain name.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "saved_model")
        plain.symlink_to(directory.absolute())
        return tf.saved_model.load(str(plain))


class SavedModel:
    """A SavedModel on disk, called by raw columns."""

    def __init__(self, directory: Path) -> None:
        self._loaded = load_saved_model(directory)  # keeps the variables alive
        self._call = self._loaded.signatures[SIGNATURE]
        self.specs: dict[str, tf.TensorSpec] = self._call.structured_input_signature[1]

    @property
    def weights(self) -> dict[str, NDArray[Any]]:
        """Its weights by name, such as `item_embedding/embeddings`; none of a SavedModel that keeps them otherwise."""
        stored = getattr(self._loaded, "weights", [])
        return {weight.name.removesuffix(":0"): weight.numpy() for weight in stored}

    def signature(self, name: str) -> Any:
        """Return one of its functions, of tensors by name, such as `one_user`."""
        return self._loaded.signatures[name]

    def predict(self, columns: Any, params: Mapping[str, Any] | None = None) -> NDArray[np.float32]:
        """Return one score per row of `columns`, a mapping (or a data frame) that has every input by its name."""
        del params
        absent = sorted(set(self.specs) - set(columns))
        if absent:
            msg = f"expected columns {sorted(self.specs)}, received none of the name {absent}"
            raise ValueError(msg)
        values = {name: _array(columns[name], spec) for name, spec in self.specs.items()}
        rows = len(next(iter(values.values())))
        scores = [
            self._call(
                **{
                    name: tf.constant(array[start : start + _BATCH], self.specs[name].dtype)
                    for name, array in values.items()
                }
            )[OUTPUT].numpy()
            for start in range(0, rows, _BATCH)
        ]
        return np.concatenate(scores) if scores else np.empty(0, np.float32)


def _array(values: Any, spec: tf.TensorSpec) -> NDArray[Any]:
    """Return a column as `[rows]` or `[rows, length]`; a data frame has a list column as an array of lists."""
    array = np.asarray(values)
    if len(spec.shape) > 1 and array.ndim == 1:
        array = np.array([list(value) for value in array], dtype=object).reshape(len(array), spec.shape[1])
    return array.astype(object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype)


def _load_pyfunc(path: str) -> SavedModel:
    """Load the directory that the MLmodel file names: MLflow's name for the entry point."""
    return SavedModel(Path(path))
