"""The channel that always works: what most people have rated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.channels import POPULAR
from serving.recommender.recall.channel import Recalled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from serving.recommender.catalogue import Catalogue


def recall_popular(catalogue: Catalogue, allowed: NDArray[np.bool_], n: int) -> Recalled:
    """Return up to `n` allowed items by falling number of ratings."""
    order = catalogue.popular
    return Recalled(POPULAR, order[allowed[order]][:n])
