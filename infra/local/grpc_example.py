"""Ask the model server for scores over gRPC, with the light client: no TensorFlow is imported.

    .venv/bin/python -m infra.local.grpc_example 127.0.0.1:8500 ml-100k.ranking request.json

`request.json` is a body of the REST interface in its columnar form: {"signature_name": ..., "inputs": {name: values}}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.jobs import JobError
from feature_repo.contracts.signatures import SCORE
from serving.protocol.client import PredictClient

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DTYPES: dict[str, type] = {"U": np.object_, "i": np.int64, "f": np.float32}
"""NumPy's kind of what JSON holds → what the models take."""


def raw_input(values: list[Any]) -> NDArray[Any]:
    """Return a column of a request as an array: text, whole numbers, or numbers with a fraction."""
    found = np.array(values)
    return found.astype(_DTYPES[found.dtype.kind])


def score(address: str, model: str, request: dict[str, Any]) -> list[float]:
    """Return the scores of a request, in the order of its items."""
    inputs = {name: raw_input(values) for name, values in request["inputs"].items()}
    with PredictClient(address) as client:
        outputs = client.predict(model, inputs, signature_name=request["signature_name"])
    return [float(value) for value in outputs[SCORE.name]]


if __name__ == "__main__":
    try:
        address, model, path = sys.argv[1:]
        scores = score(address, model, json.loads(Path(path).read_text(encoding="utf-8")))
    except JobError as error:
        sys.exit(str(error))
    except (ValueError, KeyError, OSError) as error:
        sys.exit(f"{error!r}; expected an address, a model, and a file as here:\n\n{__doc__}")
    sys.stdout.write(f"{json.dumps(scores)}\n")
