"""RecBole's models on its own data sets, fitted by its own `Trainer`.

- The split is written as RecBole's atomic files, with the fields of user and item in each row. Its vocabularies are of
  all three files; a term that only test has keeps its first vector.
- Its penalty is Adam's `weight_decay` of all weights; it is given to vectors and linear weights of terms alone, as ours
  is. Penalties of some classes' own (`reg_weight`, up to 2) are 0: the search says how much there is.
- The learning rate falls where a pass was no better, by the trainer's callback.
- Genres are a `token_seq`, whose vectors it averages.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

from infra.bench.peers.catalogue import AT_RANDOM, RECBOLE
from infra.bench.peers.rows import SPLITS

if TYPE_CHECKING:
    from infra.bench.peers.rows import Rows

_NAME = "split"
_KINDS = {"categorical": "token", "numeric": "float", "sequence": "token_seq"}
_SCORED_AT_ONCE = 8192
_TABLES = (torch.nn.Embedding,)


def fit(name: str, rows: Rows, settings: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """Return the scores of the validation and the test rows, `[rows]` each.

    Args:
        name: The model, as our catalogue has it.
        rows: What it is fitted to.
        settings: Those of our model of the same name, and of its fit.
        seed: Of weights, dropout and order.
    """
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        _write(rows, Path(folder) / _NAME)
        config = Config(
            model=AT_RANDOM[RECBOLE][name], dataset=_NAME, config_dict=_config(name, rows, settings, seed, folder)
        )
        init_seed(seed, reproducibility=True)
        dataset = create_dataset(config)
        train, valid, test = data_preparation(config, dataset)
        init_seed(seed, reproducibility=True)
        model = get_model(config["model"])(config, train.dataset)
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        trainer.optimizer = torch.optim.Adam(_groups(model, 2 * settings["l2"]), lr=settings["learning_rate"])
        trainer.fit(train, valid, verbose=False, show_progress=False, callback_fn=_slower(trainer, settings))
        best = torch.load(trainer.saved_model_file, map_location="cpu", weights_only=False)
        model.load_state_dict(best["state_dict"])
        return _scores(model, valid.dataset), _scores(model, test.dataset)


def _config(name: str, rows: Rows, settings: dict[str, Any], seed: int, folder: str) -> dict[str, Any]:
    """Return RecBole's configuration."""
    user, item = (_id_of(rows, is_users=is_users) for is_users in (True, False))
    found: dict[str, Any] = {
        "data_path": folder,
        "checkpoint_dir": f"{folder}/saved",
        "benchmark_filename": list(SPLITS),
        "USER_ID_FIELD": user,
        "ITEM_ID_FIELD": item,
        "LABEL_FIELD": rows.label,
        "load_col": {"inter": [rows.label, *(field.name for field in rows.fields)]},
        "numerical_features": [field.name for field in rows.of("numeric")],
        "eval_args": {"mode": "labeled", "order": "RO", "group_by": "none", "split": {"RS": [0.8, 0.1, 0.1]}},
        "train_neg_sample_args": None,
        "metrics": ["AUC"],
        "valid_metric": "AUC",
        "metric_decimal_place": 6,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
        "seed": seed,
        "epochs": settings["epochs"],
        "train_batch_size": settings["batch_size"],
        "eval_batch_size": _SCORED_AT_ONCE,
        "learning_rate": settings["learning_rate"],
        "stopping_step": settings["patience"] - 1,  # it stops at the first pass that is worse after so many
        "clip_grad_norm": {"max_norm": settings["clip_norm"]} if settings["clip_norm"] else None,
        "weight_decay": 0.0,
        "reg_weight": 0.0,
        "embedding_size": settings.get("embedding_size", 1),
    }
    if "hidden" in settings:
        found["mlp_hidden_size"] = list(settings["hidden"])
    if "dropout" in settings:
        found["dropout_prob"] = settings["dropout"]
    if name in {"dcn", "dcn_v2"}:
        found |= {"cross_layer_num": settings["crosses"], "mixed": False, "structure": "parallel"}
    if name == "xdeepfm":
        found["cin_layer_size"] = list(settings["maps"])
    if name == "afm":
        found["attention_size"] = settings["attention_size"]
    if name == "autoint":
        layers, heads = settings["layers"], settings["heads"]
        found |= {"n_layers": layers, "num_heads": heads, "attention_size": heads * settings["head_size"]}
        found["dropout_probs"] = [settings["dropout"]] * 3
    return found


def _id_of(rows: Rows, *, is_users: bool) -> str:
    """Return the user's or the item's field of most terms: its id."""
    of = [field for field in rows.of("categorical") if field.is_users is is_users]
    return max(of, key=lambda field: field.size).name


def _write(rows: Rows, folder: Path) -> None:
    """Write the splits as atomic files: a head that says each column's kind, tabs between, blanks within a list."""
    folder.mkdir()
    names = [rows.label, *(field.name for field in rows.fields)]
    kinds = ["float", *(_KINDS[field.kind] for field in rows.fields)]
    head = "\t".join(f"{name}:{kind}" for name, kind in zip(names, kinds, strict=True))
    for split in SPLITS:
        columns = [_text(rows, split, name, kind) for name, kind in zip(names, kinds, strict=True)]
        lines = [head, *("\t".join(row) for row in zip(*columns, strict=True))]
        (folder / f"{_NAME}.{split}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _text(rows: Rows, split: str, name: str, kind: str) -> list[str]:
    if name == rows.label:
        return [f"{each:g}" for each in rows.labels[split]]
    if kind == "float":
        return [f"{each:.6g}" for each in rows.columns[split][name]]
    values = rows.tables[split][name].to_pylist()
    if kind == "token_seq":
        # A blank is what stands between two terms.
        return [" ".join(term.replace(" ", "_") for term in row or () if term) for row in values]
    return [(each or "").replace("\t", " ") for each in values]


def _groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Return the weights by what is added to their gradients: tables of terms are drawn to 0, all else is not."""
    tables = {id(each.weight) for each in model.modules() if isinstance(each, _TABLES)}
    drawn = [each for each in model.parameters() if id(each) in tables]
    others = [each for each in model.parameters() if id(each) not in tables]
    return [{"params": drawn, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _slower(trainer: Any, settings: dict[str, Any]) -> Any:
    """Return a callback that multiplies the learning rate after each pass that was no better."""
    best = [-np.inf]

    def after(epoch: int, score: float) -> None:  # noqa: ARG001 - as it is called
        if score <= best[0]:
            for group in trainer.optimizer.param_groups:
                group["lr"] *= settings["plateau_factor"]
        best[0] = max(best[0], score)

    return after


def _scores(model: Any, dataset: Any) -> Any:
    """Return `[rows]`, in the order of the file."""
    model.eval()
    rows = dataset.inter_feat
    with torch.no_grad():
        found = [
            model.predict(rows[start : start + _SCORED_AT_ONCE]).numpy().reshape(-1)
            for start in range(0, len(rows), _SCORED_AT_ONCE)
        ]
    return np.concatenate(found)
