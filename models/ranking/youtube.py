"""The perceptron that ranks videos: pooled embeddings beside numbers, their squares and their roots.

Covington, Adams, Sargin, Deep Neural Networks for YouTube Recommendations (RecSys 2016), section 4. Learned with the
objective `watch_time`, it is the paper's weighted logistic regression, served as e^(wx+b): the time to expect.

    terms ── vectors, averaged over lists ─┐
    numbers x [batch, n] ─┬─ x ────────────┼─ [batch, width] ─ ReLU layers ─ logit [batch, 1]
                          └─ x^2, sqrt|x| ─┘

Deviations:
- The paper's x is a quantile between 0 and 1, whose powers keep the order. Here x is a number about 0, bent and scaled
  as its column says: x^2 and sqrt(|x|) say how far it is from the mean, x says on which side.
- A flag beside a number has powers, too, which are the flag again.
- All vectors have one size; in the paper it grows with the logarithm of the vocabulary.
- Fewer and smaller layers by default than 1024, 512 and 256 units; dropout, weight decay, terms taken for unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from keras import ops

from models.layers.powers import Powers
from models.ranking.fields import DeepConfig, FieldsModel, perceptron, to_logit

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class YouTubeConfig(DeepConfig):
    """The perceptron."""


class YouTube(FieldsModel[YouTubeConfig]):
    """Embeddings, numbers and powers of numbers through dense layers."""

    name: ClassVar[str] = "youtube"
    paper: ClassVar[str] = "Covington, Adams, Sargin, Deep Neural Networks for YouTube Recommendations (RecSys 2016)"
    config_class: ClassVar[type[RankingConfig]] = YouTubeConfig

    def logit(self, fields: Fields) -> Any:
        """Return what the layers say."""
        values = fields.flat(self.config.embedding_size)
        if fields.numbers is not None:
            values = ops.concatenate([values, Powers(name="powers")(fields.numbers)], axis=-1)
        return to_logit(perceptron(values, self.config))
