"""What a plane does not need, it must not get from a library that takes whatever is installed beside it."""

from __future__ import annotations

import sys
import warnings


def keep_out(package: str) -> None:
    """Make every import of `package` fail in this process, as it does where the plane is installed alone.

    On one machine all planes share an environment, and what libraries load of it costs each process seconds. MLflow
    loads plug-ins at its first request, and Feast brings one, for requests to a Feast server. TensorFlow imports Keras
    for the optimizers of models that are trained on, and Keras imports scikit-learn and matplotlib.
    """
    sys.modules.setdefault(package, None)  # type: ignore[arg-type] # None is how Python marks what must not be found
    warnings.filterwarnings("ignore", message=f"(?s).*request header provider .*{package}")
