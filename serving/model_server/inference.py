"""A request's tensors or examples → a servable's outputs, with the checks and the words of TensorFlow Serving.

Neutral of the transport: gRPC and REST both end here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from grpc import StatusCode
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from serving.model_server import metrics
from serving.model_server.errors import ServingError, failed_precondition, invalid
from serving.model_server.examples import serialized_examples
from serving.model_server.servable import dtype_word
from serving.protocol.errors import TensorError
from serving.protocol.tensors import read_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from serving.model_server.servable import Servable

DEFAULT_SIGNATURE = "serving_default"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"
_EXAMPLES_INPUT = "inputs"
_CLASSES, _SCORES, _VALUES = "classes", "scores", "outputs"

_RUNTIME = "TF1"
"""What the metrics call a session."""

Arrays = dict[str, "NDArray[Any]"]


def read_tensors(tensors: Mapping[str, Any]) -> Arrays:
    """Return the TensorProtos of a request as arrays.

    Raises:
        ServingError: INVALID_ARGUMENT with the name of the first that is malformed.
    """
    arrays: Arrays = {}
    for name, tensor in tensors.items():
        try:
            arrays[name] = read_tensor(tensor)
        except TensorError as error:
            msg = f"tensor parsing error: {name}"
            raise invalid(msg) from error
    return arrays


def predict(servable: Servable, signature_name: str, inputs: Arrays, output_filter: Sequence[str] = ()) -> Arrays:
    """Run a signature and return its outputs by name; only those in `output_filter`, if it names any.

    Raises:
        ServingError: Unknown signature, wrong inputs or outputs, or TensorFlow's own error.
    """
    signature_name = signature_name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(signature_name)
    if signature is None:
        msg = f'Serving signature key "{signature_name}" not found.'
        raise failed_precondition(msg)
    _check_inputs(signature.inputs, inputs)
    outputs = _checked_outputs(signature.outputs, output_filter)
    feeds = servable.feeds[signature_name]
    arrays = [inputs[alias] for alias in feeds.aliases]
    for place, (array, dtype) in enumerate(zip(arrays, feeds.dtypes, strict=True)):
        if array.dtype != dtype:
            msg = f"Expects arg[{place}] to be {feeds.dtype_names[place]} but {dtype_word(array.dtype)} is provided"
            raise invalid(msg)
    start = time.perf_counter()
    values = servable.run(feeds.tensors, tuple(signature.outputs[name].name for name in outputs), arrays)
    metrics.RUNTIME_LATENCY.add(metrics.micros_since(start), (servable.model, "Predict", _RUNTIME))
    return dict(zip(outputs, values, strict=True))


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _check_inputs(expected: Mapping[str, Any], inputs: Arrays) -> None:
    if len(inputs) != len(expected):
        msg = (
            f"input size does not match signature: {len(inputs)}!={len(expected)} len({_set(inputs)}) != "
            f"len({_set(expected)}). Sent extra: {_set(inputs.keys() - expected.keys())}. "
            f"Missing but required: {_set(expected.keys() - inputs.keys())}."
        )
        raise invalid(msg)
    if inputs.keys() == expected.keys():
        return
    missing = min(expected.keys() - inputs.keys())
    msg = (
        f"Signature input alias: {missing}(feed name: {expected[missing].name}) not found in request and no default "
        f"value provided. Inputs expected to be in the request {_set(inputs)}, or default input alias set: "
    )
    raise invalid(msg)


def _checked_outputs(known: Mapping[str, Any], output_filter: Sequence[str]) -> list[str]:
    if not output_filter:
        return sorted(known)
    chosen: list[str] = []
    for name in output_filter:
        if name not in known:
            msg = f"output tensor alias not found in signature: {name} Outputs expected to be in the set {_set(known)}."
            raise invalid(msg)
        if name in chosen:
            msg = f"duplicate output tensor alias: {name}"
            raise invalid(msg)
        chosen.append(name)
    return chosen


def classify(servable: Servable, signature_name: str, examples: Any) -> classification_pb2.ClassificationResult:  # noqa: ANN401 - an Input message
    """Return label and score of every class, one Classifications for each example.

    Raises:
        ServingError: Unknown signature, one of another kind, no examples, or TensorFlow's own error.
    """
    task = _Task(_CLASSIFICATION, _known_signature(servable, signature_name))
    result: classification_pb2.ClassificationResult = _results(servable, [task], examples, "Classify")[0]
    return result


def regress(servable: Servable, signature_name: str, examples: Any) -> regression_pb2.RegressionResult:  # noqa: ANN401 - an Input message
    """Return one value for each example.

    Raises:
        ServingError: Unknown signature, one of another kind, no examples, or TensorFlow's own error.
    """
    task = _Task(_REGRESSION, _known_signature(servable, signature_name))
    result: regression_pb2.RegressionResult = _results(servable, [task], examples, "Regress")[0]
    return result


def multi_inference(servable: Servable, tasks: Sequence[Any], examples: Any) -> inference_pb2.MultiInferenceResponse:  # noqa: ANN401 - an Input message
    """Classify and regress the same examples, in one run; the servable is the first task's.

    Raises:
        ServingError: Of the first task that is wrong, before anything is run; no examples, or TensorFlow's own error.
    """
    asked = _checked_tasks(servable, tasks)
    if not asked:
        msg = "Must specify at least one target to fetch or execute."
        raise invalid(msg)
    response = inference_pb2.MultiInferenceResponse()
    results = _results(servable, list(asked.values()), examples, "MultiInference")
    for name, task, result in zip(asked, asked.values(), results, strict=True):
        entry = response.results.add()
        getattr(entry, task.method.field).CopyFrom(result)
        entry.model_spec.name = tasks[0].model_spec.name
        entry.model_spec.version.value = servable.version
        entry.model_spec.signature_name = name
    return response


@dataclass(frozen=True, slots=True)
class _Method:
    """What sets classification and regression apart.

    Attributes:
        field: Where its result is in an InferenceResult.
        fetched: Checks a signature, and names the outputs that the result is made of.
        result: Makes it, of these outputs and the number of examples.
    """

    field: str
    fetched: Callable[[Any], list[str]]
    result: Callable[[Arrays, int], Any]


class _Task:
    """One signature to be run on examples."""

    def __init__(self, method: _Method, signature: Any) -> None:  # noqa: ANN401 - a SignatureDef
        fetched = method.fetched(signature)
        self.method = method
        self.input = signature.inputs[_EXAMPLES_INPUT].name
        self.outputs = {name: signature.outputs[name].name for name in fetched}


def _checked_tasks(servable: Servable, tasks: Iterable[Any]) -> dict[str, _Task]:
    """Return signature name → task, in their order."""
    asked: dict[str, _Task] = {}
    model = ""
    for task in tasks:
        spec = task.model_spec
        if not spec.name:
            msg = "Found ModelSpec with an empty model name."
            raise invalid(msg)
        model = model or spec.name
        if spec.name != model:
            msg = "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            raise invalid(msg)
        name = spec.signature_name or DEFAULT_SIGNATURE
        if name in asked:
            msg = f"Duplicate evaluation of signature: {name}"
            raise invalid(msg)
        asked[name] = _checked_task(servable, name, task.method_name)
        if asked[name].input != next(iter(asked.values())).input:
            msg = "Input tensor must be the same for all Signatures."
            raise invalid(msg)
    return asked


def _checked_task(servable: Servable, signature_name: str, method_name: str) -> _Task:
    signature = servable.signatures.get(signature_name)
    if signature is None:
        msg = f"Requested signature not found in model graph: {signature_name}"
        raise invalid(msg)
    method = _METHODS.get(method_name)
    if method is None:
        msg = f"Unsupported signature method_name: {method_name}"
        raise ServingError(StatusCode.UNIMPLEMENTED, msg)
    return _Task(method, signature)


def _known_signature(servable: Servable, signature_name: str) -> Any:  # noqa: ANN401 - a SignatureDef
    name = signature_name or DEFAULT_SIGNATURE
    try:
        return servable.signatures[name]
    except KeyError:
        msg = f"No signature was found with the name: {name}"
        raise invalid(msg) from None


def _results(servable: Servable, tasks: Sequence[_Task], examples: Any, api: str) -> list[Any]:  # noqa: ANN401 - an Input message
    """Run the tasks, whose input is the same, and return the result of each."""
    serialized = serialized_examples(examples)
    fetches = tuple(dict.fromkeys(tensor for task in tasks for tensor in task.outputs.values()))
    start = time.perf_counter()
    values = servable.run((tasks[0].input,), fetches, [serialized])
    metrics.RUNTIME_LATENCY.add(metrics.micros_since(start), (servable.model, api, _RUNTIME))
    metrics.record_examples(servable.model, len(serialized))
    found = dict(zip(fetches, values, strict=True))
    return [
        task.method.result({name: found[tensor] for name, tensor in task.outputs.items()}, len(serialized))
        for task in tasks
    ]


def _check_examples_input(signature: Any, kind: str) -> None:  # noqa: ANN401 - a SignatureDef
    if _EXAMPLES_INPUT not in signature.inputs:
        msg = f"No {kind} inputs found in SignatureDef: {signature}"
        raise invalid(msg)


def _classification_outputs(signature: Any) -> list[str]:  # noqa: ANN401 - a SignatureDef
    if len(signature.inputs) != 1:
        msg = "Expected one input Tensor."
        raise invalid(msg)
    if len(signature.outputs) not in {1, 2}:
        msg = f"Expected one or two output Tensors, found {len(signature.outputs)}"
        raise invalid(msg)
    _check_examples_input(signature, "classification")
    fetched = [name for name in (_CLASSES, _SCORES) if name in signature.outputs]
    if not fetched:
        msg = (
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature}"
        )
        raise invalid(msg)
    return fetched


def _classification_result(outputs: Arrays, count: int) -> classification_pb2.ClassificationResult:
    for name, values in outputs.items():
        if values.ndim != 2 or values.shape[0] != count:  # noqa: PLR2004 - [batch, classes]
            msg = f"Expected Tensor of shape [{count}, num_classes] for {name}, received {list(values.shape)}"
            raise invalid(msg)
    classes = outputs[_CLASSES].tolist() if _CLASSES in outputs else None
    scores = outputs[_SCORES].tolist() if _SCORES in outputs else None
    result = classification_pb2.ClassificationResult()
    for row in range(count):
        entry = result.classifications.add()
        for place in range(len((classes or scores or [[]])[row])):
            entry.classes.add(
                label=classes[row][place] if classes is not None else "",
                score=scores[row][place] if scores is not None else 0.0,
            )
    return result


def _regression_outputs(signature: Any) -> list[str]:  # noqa: ANN401 - a SignatureDef
    for kind, side in (("input", signature.inputs), ("output", signature.outputs)):
        if len(side) != 1:
            msg = f"Expected one {kind} Tensor."
            raise invalid(msg)
    _check_examples_input(signature, "regression")
    if _VALUES not in signature.outputs:
        msg = f"No regression outputs found in SignatureDef: {signature}"
        raise invalid(msg)
    return [_VALUES]


def _regression_result(outputs: Arrays, count: int) -> regression_pb2.RegressionResult:
    values = outputs[_VALUES]
    if values.shape not in {(count,), (count, 1)}:
        msg = f"Expected output Tensor shape to be either [{count}] or [{count}, 1], received {list(values.shape)}"
        raise invalid(msg)
    result = regression_pb2.RegressionResult()
    for value in values.ravel().astype(np.float32).tolist():
        result.regressions.add(value=value)
    return result


_CLASSIFICATION = _Method("classification_result", _classification_outputs, _classification_result)
_REGRESSION = _Method("regression_result", _regression_outputs, _regression_result)
_METHODS = {CLASSIFY_METHOD: _CLASSIFICATION, REGRESS_METHOD: _REGRESSION}
