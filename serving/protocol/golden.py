"""Golden requests: recorded inputs with the scores that any server of the model must answer with.

{"requests": [{"signature_name": "one_user", "inputs": {"item_id": ["1", "2"], ...}, "score": [0.71, 0.33]}]}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.publishing import CorruptRecordError, read_json
from serving.protocol.errors import TensorError
from serving.protocol.tensors import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

OUTPUT = "score"


@dataclass(frozen=True, slots=True)
class GoldenRequest:
    """One request: inputs as nested lists, and the score of each row."""

    signature_name: str
    inputs: Mapping[str, Any]
    score: tuple[float, ...]

    def arrays(self, signature: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401 - a SignatureDef message
        """Return the inputs with the dtypes that the server's signature declares.

        Raises:
            CorruptRecordError: Names differ, or a value does not fit its dtype.
        """
        if self.inputs.keys() != signature.inputs.keys():
            msg = (
                f"golden request for {self.signature_name!r}: expected the inputs {sorted(signature.inputs)}, received "
                f"{sorted(self.inputs)}; evaluate the candidate anew"
            )
            raise CorruptRecordError(msg)
        arrays: dict[str, NDArray[Any]] = {}
        for name, values in self.inputs.items():
            try:
                arrays[name] = np.array(values, dtype=numpy_dtype(signature.inputs[name].dtype))
            except (TypeError, ValueError, TensorError) as error:
                msg = f"golden request for {self.signature_name!r}, input {name}: {error}"
                raise CorruptRecordError(msg) from error
        return arrays

    def difference(self, scores: NDArray[Any]) -> float:
        """Return the largest difference between expected scores and `scores`; infinite for another shape.

        Absolute up to a score of 1, and relative to the score beyond: not every objective's are probabilities.
        """
        expected = np.array(self.score, dtype=np.float64)
        received = np.asarray(scores, dtype=np.float64).reshape(-1)
        if expected.shape != received.shape or np.isnan(received).any():
            return float("inf")
        return float((np.abs(expected - received) / np.maximum(1.0, np.abs(expected))).max(initial=0.0))


def read_golden(path: Path) -> tuple[GoldenRequest, ...]:
    """Return the requests of a golden.json; there is at least one.

    Raises:
        CorruptRecordError: The file is not what it should be; the message names the request and the field.
    """
    record = read_json(path)
    requests = record.get("requests")
    if not isinstance(requests, list) or not requests:
        msg = f'{path}: expected {{"requests": [at least one]}}, received {json.dumps(record)[:80]}'
        raise CorruptRecordError(msg)
    return tuple(_request(path, place, entry) for place, entry in enumerate(requests))


def _request(path: Path, place: int, entry: object) -> GoldenRequest:
    fields: Sequence[tuple[str, type]] = (("signature_name", str), ("inputs", dict), ("score", list))
    if not isinstance(entry, dict):
        msg = f"{path}: request {place}: expected an object, received {type(entry).__name__}"
        raise CorruptRecordError(msg)
    for name, kind in fields:
        if not isinstance(entry.get(name), kind):
            msg = f"{path}: request {place}: field {name}: expected a {kind.__name__}, received {entry.get(name)!r:.80}"
            raise CorruptRecordError(msg)
    try:
        score = tuple(map(float, entry["score"]))
    except (TypeError, ValueError) as error:
        msg = f"{path}: request {place}: field score: expected numbers: {error}"
        raise CorruptRecordError(msg) from error
    return GoldenRequest(entry["signature_name"], entry["inputs"], score)
