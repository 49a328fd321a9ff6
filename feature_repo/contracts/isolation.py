"""What a plane must not import, it must not get by a plug-in either."""

from __future__ import annotations

import sys
import warnings


def keep_out(package: str) -> None:
    """Make every import of `package` fail in this process, as it does where the plane is installed alone.

    MLflow loads the plug-ins of whatever is installed beside it at its first request. Feast brings one, for requests to
    a Feast server: on one machine, where all planes share an environment, it costs each job seconds.
    """
    sys.modules.setdefault(package, None)  # type: ignore[arg-type] # None is how Python marks what must not be found
    warnings.filterwarnings("ignore", message=f"(?s).*request header provider .*{package}")
