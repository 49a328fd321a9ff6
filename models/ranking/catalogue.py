"""The classes of ranking models, by the names that specs have."""

from __future__ import annotations

from typing import Any

from models.errors import UnknownModelError
from models.ranking.afm import AFM
from models.ranking.autoint import AutoInt
from models.ranking.bst import BST
from models.ranking.dcn import DCN, GDCN, DCNv2
from models.ranking.deep_crossing import DeepCrossing
from models.ranking.deepfm import DeepFM
from models.ranking.dien import DIEN
from models.ranking.din import DIN
from models.ranking.dlrm import DLRM
from models.ranking.dsin import DSIN
from models.ranking.ffm import FFM
from models.ranking.final_mlp import FinalMLP
from models.ranking.fm import FM
from models.ranking.fnn import FNN
from models.ranking.gbdt_lr import GBDTLR
from models.ranking.lr import LogisticRegression
from models.ranking.ls_plm import LSPLM
from models.ranking.masknet import MaskNet
from models.ranking.mlp import MLP
from models.ranking.multi_task import ESMM, PLE, MMoE
from models.ranking.neural_cf import GMF, NeuMF, NeuralCFMLP
from models.ranking.nfm import NFM
from models.ranking.pnn import PNN, OuterPNN
from models.ranking.poly2 import Poly2
from models.ranking.wide_deep import WideDeep
from models.ranking.xdeepfm import XDeepFM
from models.ranking.youtube import YouTube

_CLASSES: tuple[type[Any], ...] = (
    LogisticRegression,
    Poly2,
    FM,
    FFM,
    LSPLM,
    GBDTLR,
    MLP,
    DeepCrossing,
    GMF,
    NeuralCFMLP,
    NeuMF,
    PNN,
    OuterPNN,
    WideDeep,
    FNN,
    DeepFM,
    NFM,
    AFM,
    DCN,
    DCNv2,
    GDCN,
    XDeepFM,
    AutoInt,
    DLRM,
    FinalMLP,
    MaskNet,
    DIN,
    DIEN,
    BST,
    DSIN,
    YouTube,
    MMoE,
    PLE,
    ESMM,
)
RANKING_MODELS: dict[str, type[Any]] = {model.name: model for model in _CLASSES}
"""All that specs can name; each passes the suite in `tests/unit/models/test_ranking_models.py`."""


def ranking_model(name: str) -> type[Any]:
    """Return the class of a name.

    Raises:
        UnknownModelError: There is none.
    """
    if name not in RANKING_MODELS:
        msg = f"model {name!r}: expected one of {sorted(RANKING_MODELS)}; add it to RANKING_MODELS in {__name__}"
        raise UnknownModelError(msg)
    return RANKING_MODELS[name]
