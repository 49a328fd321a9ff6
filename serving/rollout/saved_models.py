"""Checks a SavedModel on disk without TensorFlow: its checksum, and its signatures against the contract."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from feature_repo.contracts.columns import Dtype
from feature_repo.contracts.served_models import served_sha256
from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, ROWS_SIGNATURE, Scope
from serving.protocol.errors import RecordFileError
from serving.protocol.messages import SavedModel
from serving.protocol.recorded import WARMUP_FILE, read_requests
from serving.rollout.errors import UnfitModelError

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.signatures import Signature

_SERVING_TAG = "serve"
_DATA_TYPES = {Dtype.STRING: 7, Dtype.INT64: 9, Dtype.FLOAT32: 1}
_TYPE_WORDS = {7: "string", 9: "int64", 1: "float32"}
_VARIABLES = ("variables/variables.index",)
_VALUES = "variables/variables.data-*"


def lacking(path: Path) -> str:
    """Return what a version's folder lacks for a server to load it, without reading it through; empty if nothing."""
    if not path.is_dir():
        return f"{path} is missing"
    wanted = ("saved_model.pb", *_VARIABLES, _VALUES)
    return next((f"{path} has no {name}" for name in wanted if not any(path.glob(name))), "")


def check_checksum(path: Path, expected: str) -> None:
    """Compare a SavedModel's files with what was registered; the warm-up file, which publishing adds, must be whole.

    Raises:
        UnfitModelError: They differ, or the warm-up file is damaged: the version would not load.
    """
    received = served_sha256(path, expected)
    try:
        if (path / WARMUP_FILE).is_file():
            deque(read_requests(path / WARMUP_FILE), maxlen=0)
    except RecordFileError as error:
        raise UnfitModelError(str(error)) from error
    if received != expected:
        msg = (
            f"SavedModel {path}: expected the SHA-256 {expected} that was registered, received {received}; the "
            "artifact is damaged, or was changed after its registration: train anew"
        )
        raise UnfitModelError(msg)


def check_signatures(path: Path, contract: Signature) -> None:
    """Compare a SavedModel's signatures with the contract: names, types, lengths.

    Raises:
        UnfitModelError: A file is missing or broken, or a signature differs; the message names the input.
    """
    for name in _VARIABLES:
        if not (path / name).is_file():
            msg = f"SavedModel {path}: expected the file {name}, found none; export it anew"
            raise UnfitModelError(msg)
    signatures = read_signatures(path)
    for name in (ROWS_SIGNATURE, ONE_USER_SIGNATURE):
        if name not in signatures:
            msg = f"SavedModel {path}: expected the signature {name!r}, found {sorted(signatures)}; export it anew"
            raise UnfitModelError(msg)
        _check_signature(f"SavedModel {path}, signature {name!r}", signatures[name], contract, name)


def read_signatures(path: Path) -> dict[str, Any]:
    """Return the SignatureDefs of the SavedModel's serving graph by name.

    Raises:
        UnfitModelError: There is no such file, or it cannot be read.
    """
    file = path / "saved_model.pb"
    try:
        saved_model = SavedModel.FromString(file.read_bytes())
    except (OSError, DecodeError) as error:
        msg = f"SavedModel {path}: saved_model.pb cannot be read: {error}; export it anew"
        raise UnfitModelError(msg) from error
    for graph in saved_model.meta_graphs:
        if _SERVING_TAG in graph.meta_info_def.tags:
            return dict(graph.signature_def)
    msg = f"SavedModel {path}: expected a graph with the tag {_SERVING_TAG!r}, found none; export it anew"
    raise UnfitModelError(msg)


def _check_signature(what: str, signature: Any, contract: Signature, name: str) -> None:  # noqa: ANN401 - a message
    columns = {column.name: column for column in contract.input_columns}
    if signature.inputs.keys() != columns.keys():
        msg = (
            f"{what}: expected the contract's inputs, missing {sorted(columns.keys() - signature.inputs.keys())}, "
            f"unknown {sorted(signature.inputs.keys() - columns.keys())}; export it from the contract"
        )
        raise UnfitModelError(msg)
    users = {column.name for column in contract.scoped(Scope.USER)}
    for column in columns.values():
        rows = {-1, 1} if name == ONE_USER_SIGNATURE and column.name in users else {-1}
        _check_tensor(f"{what}, input {column.name}", signature.inputs[column.name], column, rows)
    if contract.output.name not in signature.outputs:
        msg = f"{what}: expected the output {contract.output.name}, found {sorted(signature.outputs)}; export it anew"
        raise UnfitModelError(msg)
    _check_tensor(
        f"{what}, output {contract.output.name}", signature.outputs[contract.output.name], contract.output, {-1}
    )


def _check_tensor(what: str, tensor: Any, column: Column, rows: set[int]) -> None:  # noqa: ANN401 - a TensorInfo
    expected = _DATA_TYPES[column.dtype]
    if tensor.dtype != expected:
        msg = f"{what}: expected {column.dtype}, received {_TYPE_WORDS.get(tensor.dtype, tensor.dtype)}; export it anew"
        raise UnfitModelError(msg)
    if tensor.tensor_shape.unknown_rank:
        return
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    lengths = [column.length] if column.length else []
    if not shape or shape[0] not in rows or shape[1:] != lengths:
        msg = f"{what}: expected the shape {['batch', *lengths]}, received {shape}; export it from the contract"
        raise UnfitModelError(msg)
