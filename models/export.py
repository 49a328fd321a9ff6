"""A fitted model to a SavedModel that keeps the contract's signature.

The SavedModel takes raw columns by name. It is exported once: MLflow, the registry and the model server share it.
"""

from __future__ import annotations

import hashlib
import keyword
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from feature_repo.contracts.columns import Dtype
from feature_repo.contracts.publishing import CorruptRecordError, write_json
from feature_repo.contracts.signatures import (
    EXPLAIN_SIGNATURE,
    ONE_USER_SIGNATURE,
    ROWS_SIGNATURE,
    SIGNATURE_FILE,
    Scope,
    Signature,
    read_signature,
)
from models.errors import ExportError
from models.explain import BASELINE, CONTRIBUTIONS, explain
from models.inputs import TENSORFLOW_DTYPES, tensor_specs
from models.objectives import learned
from models.one_user import call_for_one_user
from models.saved_model_loader import load_saved_model

if TYPE_CHECKING:
    from pathlib import Path

    import keras

    from models.training.fit import Fitted

SIGNATURES = (ROWS_SIGNATURE, ONE_USER_SIGNATURE, EXPLAIN_SIGNATURE)


class Exported:
    """Encoder and scorer, traced once for each signature."""

    def __init__(self, fitted: Fitted, signature: Signature) -> None:
        self._encoder, self._scorer = fitted.encoded.model, fitted.scorer
        self._scopes = fitted.encoded.scopes
        self._signature = signature
        inputs = signature.inputs
        self._per_candidate = next(each.column.name for each in inputs if each.scope is not Scope.USER)

    def resources(self) -> tf.Module:
        """Return what the functions stand on: the weights, and the layers that hold lookup tables.

        Not the models themselves: TensorFlow would save every variable of a Keras 3 model twice, and whoever restores
        that into a session, as TensorFlow Serving does, restores the wrong ones. A compiled model would bring its
        optimiser along, too.
        """
        module = tf.Module(name=self._signature.model)
        module.weights = [weight.value for model in (self._encoder, self._scorer) for weight in model.weights]
        module.tables = list(self._encoder.layers)
        return module

    def functions(self) -> dict[str, Any]:
        """Return a traced function for each signature name; Python is read as Keras's loop reads it, as it stands."""
        traced = {
            name: tf.function(call, autograph=False).get_concrete_function(**tensor_specs(self._signature, name))
            for name, call in ((ROWS_SIGNATURE, self._rows), (ONE_USER_SIGNATURE, self._one_user))
        }
        return traced | {
            EXPLAIN_SIGNATURE: explain(traced[ROWS_SIGNATURE], self._signature),
        }

    def _rows(self, **columns: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._scores(self._scorer(self._encoder(columns, training=False), training=False))

    def _one_user(self, **columns: tf.Tensor) -> dict[str, tf.Tensor]:
        """Compute the user's part of encoder and scorer once, and stand it beside every candidate."""
        encoded = self._encoder(columns, training=False)
        of_user = {name for name, scope in self._scopes.items() if scope is Scope.USER}
        num_candidates = tf.shape(columns[self._per_candidate])[0]
        return self._scores(call_for_one_user(self._scorer, encoded, of_user, num_candidates))

    def _scores(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        return {self._signature.output.name: learned(self._signature.objective).scores(logits)}


def export(fitted: Fitted, signature: Signature, directory: Path) -> None:
    """Write the SavedModel to `directory`, and read it back against the contract.

    Raises:
        ExportError: a column's name cannot be an input, or what was written is not what the contract says.
    """
    unfit = sorted(
        column.name
        for column in (*signature.input_columns, signature.output)
        if keyword.iskeyword(column.name) or not column.name.isascii()
    )
    if unfit:
        msg = f"signature {signature.model}: expected ASCII names that are no Python keywords, received {unfit}"
        raise ExportError(msg)
    exported = Exported(fitted, signature)
    tf.saved_model.save(exported.resources(), str(directory), signatures=exported.functions())
    write_json(directory / SIGNATURE_FILE, signature.to_json())
    check_signatures(directory, signature)


def check_signatures(directory: Path, signature: Signature) -> None:
    """Raise ExportError unless the SavedModel has all signatures with the contract's names, types and shapes."""
    differences = signature_differences(directory, signature)
    if differences:
        msg = f"SavedModel {directory}: its signature is not the contract's: {'; '.join(differences)}; export it again"
        raise ExportError(msg)


def signature_differences(directory: Path, signature: Signature) -> list[str]:
    """Return how the SavedModel's signatures differ from the contract's; none if it keeps them."""
    found = load_saved_model(directory).signatures
    differences: list[str] = []
    try:
        stored = read_signature(directory).to_json()
    except CorruptRecordError as error:
        differences.append(str(error))
    else:
        if stored != signature.to_json():
            differences.append(f"{SIGNATURE_FILE}: expected the signature of the spec's features and objective")
    for name in SIGNATURES:
        if name not in found:
            differences.append(f"expected a signature {name!r}, received {sorted(found)}")
            continue
        expected = {column: (spec.dtype, tuple(spec.shape)) for column, spec in tensor_specs(signature, name).items()}
        received = {
            column: (spec.dtype, tuple(spec.shape))
            for column, spec in found[name].structured_input_signature[1].items()
        }
        differences += [
            f"{name}: input {column}: expected {expected.get(column)}, received {received.get(column)}"
            for column in sorted(expected.keys() | received.keys())
            if expected.get(column) != received.get(column)
        ]
        outputs = {column: (spec.dtype, len(spec.shape)) for column, spec in found[name].structured_outputs.items()}
        ranks = {CONTRIBUTIONS: 2, BASELINE: 1} if name == EXPLAIN_SIGNATURE else {signature.output.name: 1}
        wanted = {column: (TENSORFLOW_DTYPES[Dtype.FLOAT32], rank) for column, rank in ranks.items()}
        if outputs != wanted:
            differences.append(f"{name}: expected output {wanted}, received {outputs}")
    return differences


def weights_sha256(model: keras.Model) -> str:
    """Return one SHA-256 over the names, shapes and values of a model's weights.

    Two saves of the same SavedModel differ in bytes; this does not.
    """
    digest = hashlib.sha256()
    for weight in sorted(model.weights, key=lambda weight: str(weight.path)):
        values = np.ascontiguousarray(weight.value.numpy())
        digest.update(f"{weight.path}|{values.shape}|{values.dtype}\0".encode() + values.tobytes())
    return digest.hexdigest()
