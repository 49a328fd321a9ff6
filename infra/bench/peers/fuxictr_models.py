"""FuxiCTR's models, fitted by its own `BaseModel.fit`: patience, a falling learning rate and cut gradients are its own.

- PyPI has the library with its layers and, of its model zoo, what LongCTR compares. DIN, DIEN and the fusion of
  FinalMLP come from there. The other models are put together here of the library's layers, as the papers have them;
  MaskNet, GDCN, AutoInt and BST need layers that are not in the package.
- Rows are handed to it from memory, in batches that are shuffled here: its own loaders read what its preparation wrote,
  and that asks polars for what polars has no longer.
- Genres are a `sequence` with `MaskedAveragePooling`; for the linear weights the library sums them.
"""

from __future__ import annotations

import logging
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch import layers
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything
from model_zoo.LongCTR.DIEN.DIEN import DIEN
from model_zoo.LongCTR.DIN.DIN import DIN
from model_zoo.LongCTR.FinalMLP.FinalMLP import FeatureSelection, InteractionAggregation
from torch import nn

from infra.bench.peers.rows import MISSING, TEST, TRAIN, VALID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from infra.bench.peers.rows import Field, Rows

_SCORED_AT_ONCE = 8192
_AVERAGE = "layers.MaskedAveragePooling()"


def fit(name: str, rows: Rows, settings: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """Return the scores of the validation and the test rows, `[rows]` each.

    Args:
        name: The model, as our catalogue has it.
        rows: What it is fitted to.
        settings: Those of our model of the same name, and of its fit.
        seed: Of weights, dropout and order.
    """
    logging.disable(logging.INFO)
    seed_everything(seed)
    with tempfile.TemporaryDirectory() as folder:
        features = _feature_map(rows, settings, folder)
        (Path(folder) / features.dataset_id).mkdir()  # the library keeps its best weights there
        model = _model(name, rows, settings, features, folder)
        batches = {split: _Batches(rows, split, _SCORED_AT_ONCE) for split in (VALID, TEST)}
        train = _Batches(rows, TRAIN, settings["batch_size"], shuffled=True)
        model.fit(
            train,
            epochs=settings["epochs"],
            validation_data=batches[VALID],
            max_gradient_norm=settings["clip_norm"] or float("inf"),
        )
        return model.predict(batches[VALID]), model.predict(batches[TEST])


class _Batches:
    """The rows of a split, as the model takes them: by name; a history with its candidate and its mask beside."""

    def __init__(self, rows: Rows, split: str, size: int, *, shuffled: bool = False) -> None:
        self._history = next((field for field in rows.fields if field.shares), None)
        self._columns = {name: torch.from_numpy(values) for name, values in rows.columns[split].items()}
        self._columns[rows.label] = torch.from_numpy(rows.labels[split])
        self._count, self._size, self._shuffled = len(rows.labels[split]), size, shuffled

    def __len__(self) -> int:
        return math.ceil(self._count / self._size)

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(self._count) if self._shuffled else torch.arange(self._count)
        for chosen in order.split(self._size):
            yield self._batch({name: values[chosen] for name, values in self._columns.items()})

    def _batch(self, columns: dict[str, Any]) -> Any:
        if self._history is None:
            return columns
        items, candidate = columns.pop(self._history.name), columns.pop(self._history.shares)
        together = torch.cat([items, candidate.unsqueeze(1)], dim=1)
        return columns, {self._history.shares: together.reshape(-1)}, (items != MISSING).float()


def _feature_map(rows: Rows, settings: dict[str, Any], folder: str) -> Any:
    """Return the library's description of the fields; a history is no field of its own."""
    found = FeatureMap("split", folder)
    shared = {field.shares for field in rows.fields if field.shares}
    found.features.update((field.name, _spec(field, shared)) for field in rows.fields if not field.shares)
    found.labels = [rows.label]
    found.default_emb_dim = settings.get("embedding_size", 1)
    found.num_fields = found.get_num_fields()
    found.set_column_index()
    return found


def _spec(field: Field, shared: set[str]) -> dict[str, Any]:
    source = "item" if field.name in shared else ""
    if field.kind == "numeric":
        return {"source": source, "type": "numeric"}
    found = {"source": source, "type": field.kind, "padding_idx": MISSING, "vocab_size": field.size}
    return found | {"max_len": field.length, "feature_encoder": _AVERAGE} if field.kind == "sequence" else found


def _model(name: str, rows: Rows, settings: dict[str, Any], features: Any, folder: str) -> Any:
    common = {
        "early_stop_patience": settings["patience"],
        "reduce_lr_on_plateau": settings["plateau_factor"] < 1,
        "embedding_regularizer": 2 * settings["l2"],  # the library adds half of it times the sum of squares
        "verbose": 0,
        "model_root": folder,
        "metrics": ["AUC"],
        "optimizer": "adam",
        "loss": "binary_crossentropy",
        "learning_rate": settings["learning_rate"],
    }
    if name in {"din", "dien"}:
        deep = {"dnn_hidden_units": list(settings["hidden"]), "net_dropout": settings["dropout"], "batch_norm": False}
        own = {"attention_hidden_units": list(settings["attention_hidden"])} if name == "din" else {}
        model_class = DIN if name == "din" else DIEN
        return model_class(features, embedding_dim=settings["embedding_size"], **deep, **own, **common)
    fields = len(rows.fields)
    size = settings.get("embedding_size", 1)
    return _Assembled(name, features, _PARTS[name](features, settings, fields, fields * size), size, common)


class _Assembled(BaseModel):  # type: ignore[misc]  # the library has no types
    """A model of the library's layers: the sum of its parts' logits."""

    def __init__(self, name: str, features: Any, parts: list[nn.Module], size: int, common: dict[str, Any]) -> None:
        super().__init__(features, model_id=name, **common)
        self.embedding_layer = layers.FeatureEmbedding(features, size)
        self.parts = nn.ModuleList(parts)
        self.compile(common["optimizer"], common["loss"], common["learning_rate"])
        self.reset_parameters()

    def forward(self, inputs: Any) -> dict[str, Any]:
        """Return `y_pred`, `[rows, 1]`."""
        columns = self.get_inputs(inputs)
        vectors = self.embedding_layer(columns)
        return {"y_pred": self.output_activation(sum(part(columns, vectors) for part in self.parts))}


class _Linear(nn.Module):  # type: ignore[misc]  # torch is not in this environment
    """The library's logistic regression."""

    def __init__(self, features: Any) -> None:
        super().__init__()
        self.layer = layers.LogisticRegression(features)

    def forward(self, columns: Any, vectors: Any) -> Any:  # noqa: ARG002 - as all parts are called
        """Return `[rows, 1]`."""
        return self.layer(columns)


class _Machine(nn.Module):  # type: ignore[misc]  # torch is not in this environment
    """The library's factorization machine, with its linear weights."""

    def __init__(self, features: Any) -> None:
        super().__init__()
        self.layer = layers.FactorizationMachine(features)

    def forward(self, columns: Any, vectors: Any) -> Any:
        """Return `[rows, 1]`."""
        return self.layer(columns, vectors)


class _Of(nn.Module):  # type: ignore[misc]  # torch is not in this environment
    """Layers over what is made of the vectors, `[rows, fields, size]`."""

    def __init__(self, layer: nn.Module, first: Callable[[Any], Any] | nn.Module) -> None:
        super().__init__()
        self.layer, self.first = layer, first

    def forward(self, columns: Any, vectors: Any) -> Any:  # noqa: ARG002 - as all parts are called
        """Return `[rows, 1]`."""
        return self.layer(self.first(vectors))


class _Beside(nn.Module):  # type: ignore[misc]  # torch is not in this environment
    """Two ways from the flat vectors, side by side, under one logit."""

    def __init__(self, ways: list[nn.Module], width: int) -> None:
        super().__init__()
        self.ways, self.logit = nn.ModuleList(ways), nn.Linear(width, 1)

    def forward(self, flat: Any) -> Any:
        """Return `[rows, 1]`."""
        return self.logit(torch.cat([way(flat) for way in self.ways], dim=-1))


class _WithProducts(nn.Module):  # type: ignore[misc]  # torch is not in this environment
    """The flat vectors and the products of each two."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.products = layers.InnerProductInteraction(fields, output="inner_product")

    def forward(self, vectors: Any) -> Any:
        """Return `[rows, fields * size + pairs]`."""
        return torch.cat([_flat(vectors), self.products(vectors)], dim=-1)


class _Final(nn.Module):  # type: ignore[misc]  # torch is not in this environment
    """FinalMLP: two gated perceptrons that the library's own layer fuses."""

    def __init__(self, features: Any, settings: dict[str, Any], width: int, size: int) -> None:
        super().__init__()
        self.gates = FeatureSelection(features, width, size, list(settings["gate"]))
        first, second = list(settings["hidden"]), list(settings["second"])
        self.first = _perceptron(width, settings, first, output=None)
        self.second = _perceptron(width, settings, second, output=None)
        self.fused = InteractionAggregation(first[-1], second[-1], 1, settings["heads"])

    def forward(self, columns: Any, vectors: Any) -> Any:
        """Return `[rows, 1]`."""
        one, other = self.gates(columns, _flat(vectors))
        return self.fused(self.first(one), self.second(other))


def _flat(vectors: Any) -> Any:
    return vectors.flatten(start_dim=1)


def _perceptron(width: int, settings: dict[str, Any], hidden: list[int] | None = None, output: int | None = 1) -> Any:
    return layers.MLP_Block(
        input_dim=width,
        hidden_units=list(settings["hidden"]) if hidden is None else hidden,
        output_dim=output,
        dropout_rates=settings["dropout"],
    )


def _crossed(settings: dict[str, Any], width: int, cross: Any) -> list[nn.Module]:
    ways = [cross(width, settings["crosses"]), _perceptron(width, settings, output=None)]
    return [_Of(_Beside(ways, width + settings["hidden"][-1]), _flat)]


def _deep(width: int, settings: dict[str, Any]) -> nn.Module:
    return _Of(_perceptron(width, settings), _flat)


def _products(settings: dict[str, Any], fields: int, width: int) -> nn.Module:
    return _Of(_perceptron(width + fields * (fields - 1) // 2, settings), _WithProducts(fields))


def _products_alone(features: Any, settings: dict[str, Any], fields: int) -> nn.Module:
    """Return DLRM of terms alone: its perceptron sees products, and beside them only what is made of numbers."""
    if any(spec["type"] == "numeric" for spec in features.features.values()):
        msg = "DLRM: expected fields of terms alone, received numbers, of which the package has no bottom layers"
        raise ValueError(msg)
    products = layers.InnerProductInteraction(fields, output="inner_product")
    return _Of(_perceptron(fields * (fields - 1) // 2, settings), products)


def _pooled(settings: dict[str, Any], fields: int, size: int) -> nn.Module:
    pooled = layers.InnerProductInteraction(fields, output="bi_interaction")
    return _Of(_perceptron(size, settings), pooled)


_PARTS: dict[str, Callable[[Any, dict[str, Any], int, int], list[nn.Module]]] = {
    "lr": lambda features, *_: [_Linear(features)],
    "fm": lambda features, *_: [_Machine(features)],
    "mlp": lambda _, settings, __, width: [_deep(width, settings)],
    "wide_deep": lambda features, settings, _, width: [_Linear(features), _deep(width, settings)],
    "deepfm": lambda features, settings, _, width: [_Machine(features), _deep(width, settings)],
    "pnn": lambda _, settings, fields, width: [_products(settings, fields, width)],
    "dlrm": lambda features, settings, fields, _: [_products_alone(features, settings, fields)],
    "nfm": lambda features, settings, fields, width: [_Linear(features), _pooled(settings, fields, width // fields)],
    "dcn": lambda _, settings, __, width: _crossed(settings, width, layers.CrossNet),
    "dcn_v2": lambda _, settings, __, width: _crossed(settings, width, layers.CrossNetV2),
    "xdeepfm": lambda features, settings, fields, width: [
        _Linear(features),
        _deep(width, settings),
        _Of(layers.CompressedInteractionNet(fields, list(settings["maps"])), nn.Identity()),
    ],
    "finalmlp": lambda features, settings, fields, width: [_Final(features, settings, width, width // fields)],
}
"""Model → its parts, of the features, the settings, how many fields there are, and the width of their flat vectors."""
