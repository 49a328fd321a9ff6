"""How a SavedModel is laid out as an MLflow model: the directory itself, `saved_model/`, the bytes that are served.

MLflow's own TensorFlow flavour would save the model once more. Beside it lie the loader (self-contained, so that
`mlflow.pyfunc.load_model` works away from this repository), the input example and the requirements.
"""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
from mlflow.models import ModelSignature
from mlflow.models.utils import _save_example  # MLflow's flavours all use it; nothing public writes an example
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

from feature_repo.contracts.columns import Column, Dtype

if TYPE_CHECKING:
    from mlflow.models import Model

    from feature_repo.contracts.signatures import Signature

SAVED_MODEL = "saved_model"
_CODE = "code"
_REQUIREMENTS = ("tensorflow", "numpy", "mlflow")
_DATA_TYPES = {Dtype.STRING: DataType.string, Dtype.INT64: DataType.long, Dtype.FLOAT32: DataType.double}
"""Floats are double here: MLflow refuses to narrow what JSON and data frames hold by default; the loader narrows."""


def model_signature(signature: Signature) -> ModelSignature:
    """Return the contract's signature as MLflow shows and enforces it."""
    return ModelSignature(
        inputs=Schema([ColSpec(_data_type(column), column.name) for column in signature.input_columns]),
        outputs=Schema([ColSpec(DataType.float, signature.output.name)]),
    )


def _data_type(column: Column) -> Any:
    return Array(_DATA_TYPES[column.dtype]) if column.length else _DATA_TYPES[column.dtype]


def save_model(
    path: str,
    mlflow_model: Model,
    saved_model: Path,
    signature: Signature,
    input_example: Any,
    *,
    validate_serving_input: bool,
) -> None:
    """Write an MLflow model to `path`; `mlflow.models.Model.log` calls this by its name.

    `validate_serving_input` is for that caller, who reads it and passes it on.
    """
    del validate_serving_input
    root = Path(path)
    shutil.copytree(saved_model, root / SAVED_MODEL)
    loader = Path(__file__).with_name("saved_model_loader.py")
    code = root / _CODE / "kestrel_saved_model_loader.py"
    code.parent.mkdir()
    shutil.copyfile(loader, code)
    requirements = [f"{name}=={version(name)}" for name in _REQUIREMENTS]
    (root / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    (root / "python_env.yaml").write_text(
        f"python: {platform.python_version()}\nbuild_dependencies: [pip]\ndependencies: [-r requirements.txt]\n",
        encoding="utf-8",
    )
    mlflow_model.signature = model_signature(signature)
    _save_example(mlflow_model, input_example, path)
    mlflow.pyfunc.add_to_model(
        mlflow_model, loader_module=code.stem, data=SAVED_MODEL, code=_CODE, python_env="python_env.yaml"
    )
    mlflow_model.save(str(root / "MLmodel"))
