"""DeepCTR-Torch's models, fitted by its own `fit`.

- Its loss is the sum over a batch, and its penalty that of the whole tables. Ours is of a mean, so its `l2` is ours
  times the rows of a batch.
- Its early stopping is the library's. The learning rate falls where a pass was no better by a callback of ours, as in
  all others here. It cuts no gradients.
- Its loader takes row after row, which is most of its time; batches are cut from the same tensors here.
- Genres are a `VarLenSparseFeat` that is averaged.
- Its MLR is left out: it reads the weights of the regions for the learners, too, so that it is no mixture.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from infra.bench.peers.rows import TEST, TRAIN, VALID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from infra.bench.peers.rows import Field, Rows

# It asks PyPI for its newest version whenever it is imported, by a library that it does not declare.
sys.modules.setdefault("requests", ModuleType("requests"))

from deepctr_torch import models  # noqa: E402
from deepctr_torch.callbacks import Callback, EarlyStopping  # noqa: E402
from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat  # noqa: E402
from deepctr_torch.models import basemodel  # noqa: E402

_SCORED_AT_ONCE = 8192
_LENGTH = "history_length"


def fit(name: str, rows: Rows, settings: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """Return the scores of the validation and the test rows, `[rows]` each.

    Args:
        name: The model, as our catalogue has it.
        rows: What it is fitted to.
        settings: Those of our model of the same name, and of its fit.
        seed: Of weights, dropout and order.
    """
    torch.manual_seed(seed)
    model = _model(name, rows, settings, seed)
    inputs = {split: _inputs(rows, split) for split in (TRAIN, VALID, TEST)}
    model.compile(
        torch.optim.Adam(model.parameters(), lr=settings["learning_rate"]), "binary_crossentropy", metrics=["auc"]
    )
    stopping = EarlyStopping("val_auc", patience=settings["patience"], mode="max", restore_best_weights=True)
    model.fit(
        inputs[TRAIN],
        rows.labels[TRAIN],
        batch_size=settings["batch_size"],
        epochs=settings["epochs"],
        verbose=0,
        validation_data=(inputs[VALID], rows.labels[VALID]),
        callbacks=[stopping, _Slower(settings["plateau_factor"])],
    )
    model.load_state_dict(stopping.best_weights)  # it brings them back only where it stopped before the last pass
    valid, test = (model.predict(inputs[split], _SCORED_AT_ONCE).reshape(-1) for split in (VALID, TEST))
    return valid, test


class _Batches:
    """What `fit` and `predict` ask of torch's DataLoader, whole batches at once: that one takes row after row."""

    def __init__(self, dataset: Any, *, shuffle: bool, batch_size: int) -> None:
        self._tensors, self._shuffle, self._size = dataset.tensors, shuffle, batch_size

    def __iter__(self) -> Iterator[Any]:
        count = len(self._tensors[0])
        order = torch.randperm(count) if self._shuffle else torch.arange(count)
        for chosen in order.split(self._size):
            yield tuple(tensor[chosen] for tensor in self._tensors)


basemodel.DataLoader = _Batches


class _Slower(Callback):  # type: ignore[misc]  # the library has no types
    """Multiplies the learning rate by a factor after each pass that was no better."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor, self._best = factor, -np.inf

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as it is called
        found = (logs or {})["val_auc"]
        if found <= self._best:
            for group in self.model.optim.param_groups:
                group["lr"] *= self._factor
        self._best = max(self._best, found)


def _inputs(rows: Rows, split: str) -> dict[str, Any]:
    """Return the library's names → arrays; the history has its length beside it."""
    found = {_called(field): rows.columns[split][field.name] for field in rows.fields}
    for field in rows.fields:
        if field.shares:
            found[_LENGTH] = (rows.columns[split][field.name] > 0).sum(axis=1)
    return found


def _called(field: Field) -> str:
    """Return a field's name: the library finds a history by that of the item's, with `hist_` before it."""
    return f"hist_{field.shares}" if field.shares else str(field.name)


def _columns(rows: Rows, size: int) -> list[Any]:
    """Return the library's columns of features, each term with a vector of this size."""
    found: list[Any] = []
    for field in rows.fields:
        if field.kind == "numeric":
            found.append(DenseFeat(field.name, 1))
            continue
        term = SparseFeat(_called(field), field.size, size, embedding_name=field.shares or field.name)
        if field.kind == "categorical":
            found.append(term)
        else:
            found.append(VarLenSparseFeat(term, field.length, "mean", _LENGTH if field.shares else None))
    return found


def _model(name: str, rows: Rows, settings: dict[str, Any], seed: int) -> Any:
    """Return the library's model, with our settings where it has such."""
    columns = _columns(rows, settings["embedding_size"])
    l2 = settings["l2"] * settings["batch_size"]
    common = {"l2_reg_embedding": l2, "init_std": settings["spread"], "seed": seed, "device": "cpu"}
    deep = {"dnn_hidden_units": tuple(settings.get("hidden", ())), "dnn_dropout": settings["dropout"]}
    linear = {"l2_reg_linear": l2}
    if name in {"din", "dien"}:
        candidate = next(field.shares for field in rows.fields if field.shares)
        own: dict[str, Any] = {} if name == "din" else {"gru_type": "AUGRU"}
        return {"din": models.DIN, "dien": models.DIEN}[name](columns, [candidate], **own, **common, **deep)
    if name in {"pnn", "opnn"}:
        return models.PNN(columns, use_inner=name == "pnn", use_outter=name == "opnn", **common, **deep)
    model_class, own = _WITH_LINEAR[name](settings)
    own |= {} if name == "autoint" else linear
    return model_class(columns, columns, **own, **common, **({} if name == "afm" else deep))


_WITH_LINEAR: dict[str, Callable[[dict[str, Any]], tuple[Any, dict[str, Any]]]] = {
    "wide_deep": lambda _: (models.WDL, {}),
    "deepfm": lambda _: (models.DeepFM, {}),
    "nfm": lambda _: (models.NFM, {}),
    "afm": lambda own: (models.AFM, {"attention_factor": own["attention_size"], "afm_dropout": own["dropout"]}),
    "dcn": lambda own: (models.DCN, {"cross_num": own["crosses"], "cross_parameterization": "vector"}),
    "dcn_v2": lambda own: (models.DCN, {"cross_num": own["crosses"], "cross_parameterization": "matrix"}),
    "xdeepfm": lambda own: (models.xDeepFM, {"cin_layer_size": tuple(own["maps"])}),
    "autoint": lambda own: (models.AutoInt, {"att_layer_num": own["layers"], "att_head_num": own["heads"]}),
}
"""Model → its class, and what it has of our settings; each has linear weights beside."""
