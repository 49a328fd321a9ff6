"""`python -m infra.bench.peers.run <job.json>`, in the peers' environment: one model, with each of some settings.

    {"folder": "<given split>", "peer": "recbole", "model": "deepfm", "settings": [{...}, ...], "seed": 1,
     "out": "<path without ending>", "threads": 2}

The validation rows' AUC says which of the settings counts. It leaves `<out>-valid.npy` and `<out>-test.npy`, float32
`[rows]` in the order of the files, and `<out>.json` with the settings' AUCs, seconds and versions.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from infra.bench.peers.catalogue import MODULES
from infra.bench.peers.rows import TEST, VALID, read_rows

_TOLD = ("torch", "numpy", "pandas", "scipy", "scikit-learn")


def main(path: Path) -> None:
    """Run a job."""
    job: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    torch.set_num_threads(int(job["threads"]))
    fit = import_module(f"infra.bench.peers.{MODULES[job['peer']]}").fit
    rows = read_rows(Path(job["folder"]))
    fits, searched, seconds = [], [], []
    for settings in job["settings"]:
        began = time.perf_counter()
        fits.append(fit(job["model"], rows, settings, int(job["seed"])))
        seconds.append(time.perf_counter() - began)
        searched.append(float(roc_auc_score(rows.labels[VALID], fits[-1][0])))
    best = int(np.argmax(searched))
    out = Path(job["out"])
    for split, scores in zip((VALID, TEST), fits[best], strict=True):
        np.save(out.with_name(f"{out.name}-{split}.npy"), np.asarray(scores, np.float32))
    versions = {name: version(name) for name in (job["peer"], *_TOLD)} | {"python": platform.python_version()}
    record = {"option": best, "searched": searched, "seconds": seconds[best], "versions": versions}
    out.with_name(f"{out.name}.json").write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
