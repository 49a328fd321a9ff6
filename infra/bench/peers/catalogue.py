"""Our names of models → those that each library has; both environments read this, so it imports nothing."""

from __future__ import annotations

RECBOLE, DEEPCTR, FUXICTR = "recbole", "deepctr-torch", "fuxictr"
"""As PyPI names them."""
MODULES = {RECBOLE: "recbole_models", DEEPCTR: "deepctr_models", FUXICTR: "fuxictr_models"}
"""Library → the module beside this one that fits its models."""

AT_RANDOM: dict[str, dict[str, str]] = {
    RECBOLE: {
        "lr": "LR",
        "fm": "FM",
        "ffm": "FFM",
        "pnn": "PNN",
        "wide_deep": "WideDeep",
        "fnn": "FNN",
        "deepfm": "DeepFM",
        "nfm": "NFM",
        "afm": "AFM",
        "dcn": "DCN",
        "dcn_v2": "DCNV2",
        "xdeepfm": "xDeepFM",
        "autoint": "AutoInt",
    },
    DEEPCTR: {
        "pnn": "PNN",
        "opnn": "PNN",
        "wide_deep": "WDL",
        "deepfm": "DeepFM",
        "nfm": "NFM",
        "afm": "AFM",
        "dcn": "DCN",
        "dcn_v2": "DCN",
        "xdeepfm": "xDeepFM",
        "autoint": "AutoInt",
    },
    FUXICTR: {
        "lr": "LR",
        "fm": "FM",
        "mlp": "DNN",
        "pnn": "PNN",
        "wide_deep": "WideDeep",
        "deepfm": "DeepFM",
        "nfm": "NFM",
        "dcn": "DCN",
        "dcn_v2": "DCNv2",
        "xdeepfm": "xDeepFM",
        "dlrm": "DLRM",
        "finalmlp": "FinalMLP",
    },
}
"""Library → our model → theirs, on rows of ids and attributes."""

BY_TIME: dict[str, dict[str, str]] = {
    DEEPCTR: {"din": "DIN", "dien": "DIEN"},
    FUXICTR: {"din": "DIN", "dien": "DIEN"},
}
"""The same for models of a history."""
