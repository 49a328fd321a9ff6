"""Replays the warm-up records of a version before it is AVAILABLE, so that the first caller does not pay for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from serving.model_server import inference, metrics
from serving.model_server.errors import ServingError, invalid

if TYPE_CHECKING:
    from pathlib import Path

    from serving.model_server.servable import Servable

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000


def warm_up(servable: Servable, path: Path, iterations: int = 1) -> int:
    """Run every record of the version in `path`, `iterations` times, and return how many there were.

    Raises:
        ServingError: A record cannot be read or its request fails: the version must not be served.
    """
    file = path / WARMUP_FILE
    if not iterations or not file.is_file():
        return 0
    start, status = time.perf_counter(), "OK"
    try:
        return _replay_file(servable, file, iterations)
    except ServingError as error:
        status = f"{error.code.name}: {error.message}"
        raise
    finally:
        metrics.WARMUP_LATENCY.add(metrics.micros_since(start), (str(path), status))


def _replay_file(servable: Servable, file: Path, iterations: int) -> int:
    count = 0
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(file)):
            count += 1
            metrics.WARMUP_RECORDS.add((str(file.parents[1]),))
            if count > MAX_RECORDS:
                msg = f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}"
                raise invalid(msg)
            log = prediction_log_pb2.PredictionLog.FromString(record)
            for _ in range(iterations):
                _replay(servable, log)
    except tf.errors.OpError as error:
        msg = (
            f"Failed to read warmup record {count + 1} of {file}: {error.message}. Please verify that the file is in "
            "TFRecord format"
        )
        raise ServingError(ServingError.from_tensorflow(error).code, msg) from error
    except DecodeError as error:
        msg = f"Failed to parse warmup record {count} of {file}: expected a PredictionLog"
        raise invalid(msg) from error
    return count


def _replay(servable: Servable, log: prediction_log_pb2.PredictionLog) -> None:
    match log.WhichOneof("log_type"):
        case "predict_log":
            request = log.predict_log.request
            signature_name = request.model_spec.signature_name
            inputs = inference.read_tensors(request.inputs)
            inference.predict(servable, signature_name, inputs, tuple(request.output_filter))
        case "classify_log":
            request = log.classify_log.request
            inference.classify(servable, request.model_spec.signature_name, request.input)
        case "regress_log":
            request = log.regress_log.request
            inference.regress(servable, request.model_spec.signature_name, request.input)
        case "multi_inference_log":
            request = log.multi_inference_log.request
            inference.multi_inference(servable, request.tasks, request.input)
        case other:
            msg = f"Unsupported log_type for warmup: {other}"
            raise ServingError.from_tensorflow(tf.errors.UnimplementedError(None, None, msg))
