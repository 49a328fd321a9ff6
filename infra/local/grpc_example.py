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

from feature_repo.contracts.columns import Dtype
from feature_repo.contracts.signatures import RANKING
from serving.protocol.client import PredictClient

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES = {Dtype.STRING: np.object_, Dtype.INT64: np.int64, Dtype.FLOAT32: np.float32}


def score(address: str, model: str, request: dict[str, Any]) -> list[float]:
    """Return the scores of a request, in the order of its items."""
    inputs: dict[str, NDArray[Any]] = {
        column.name: np.array(request["inputs"][column.name], dtype=DTYPES[column.dtype])
        for column in RANKING.input_columns
    }
    with PredictClient(address) as client:
        outputs = client.predict(model, inputs, signature_name=request["signature_name"])
    return [float(value) for value in outputs[RANKING.output.name]]


if __name__ == "__main__":
    address, model, path = sys.argv[1:]
    sys.stdout.write(f"{json.dumps(score(address, model, json.loads(Path(path).read_text(encoding='utf-8'))))}\n")
