"""Models whose heads share a part: experts that gates choose among, or the vectors alone.

All stand on `fields.flat`, x `[batch, width]`: every term's vector and every number. Of the objective
`taken_and_liked` there are two heads, and the score is the product of their probabilities; an objective of one logit
has one head. Towers end in a logit each, `[batch, heads]` together.

MMoE. Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts (KDD 2018),
section 4.2:

    x ─┬─ experts [batch, n, w] ─┬─ gate of head 1 ─ tower ─ logit
       └─ (chooses) ─────────────┴─ gate of head 2 ─ tower ─ logit

PLE. Tang et al., Progressive Layered Extraction (PLE) (RecSys 2020), section 4; one level is the paper's CGC:

    x ─┬─ experts of head 1 ─┬─ gate of head 1, over its own and shared ones ─ ... ─ tower ─ logit
       ├─ shared experts ────┼─ gate of all, over all experts ─ ...        (not after the last level)
       └─ experts of head 2 ─┴─ gate of head 2, over its own and shared ones ─ ... ─ tower ─ logit

ESMM. Ma et al., Entire Space Multi-Task Model (SIGIR 2018), section 2.2:

    x ─┬─ tower of "taken" ─ logit ─────────┐
       └─ tower of "liked if taken" ─ logit ─┴─ product of probabilities, in the objective

Deviations:
- All: dropout, weight decay on vectors, terms taken for unknown; heads' losses weigh alike, as the objective has them.
- MMoE, PLE: experts and towers are ReLU layers with dropout, of one width for all. With one head, a PLE of one level is
  an MMoE of as many experts.
- ESMM: the second loss. The paper's is of taken and liked, over all rows, and reaches the second tower through the
  product. The objective's is of liked over the rows that were taken: the log likelihood of the same three outcomes
  (not taken; taken; taken and liked), with the same score. With one head it is a perceptron.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from keras import ops
from pydantic import Field

from models.layers.gated_experts import GatedExperts
from models.ranking.base import Widths
from models.ranking.fields import DeepConfig, Fields, FieldsModel, perceptron, to_logit

if TYPE_CHECKING:
    from models.encoding import Encoded
    from models.ranking.base import RankingConfig

_ONLY = "score"
"""The head of an objective that names none."""
_SHARED = "shared"


class MultiTaskConfig(DeepConfig):
    """What the config of a model whose heads share a part holds."""

    hidden: Widths = (32,)
    """Widths of each head's tower."""


class ExpertsConfig(MultiTaskConfig):
    """What the config of a model with experts holds."""

    expert_hidden: Widths = Field(default=(32,), min_length=1)
    """Widths of each expert's layers."""


class MMoEConfig(ExpertsConfig):
    """One set of experts, a gate for each head."""

    experts: int = Field(default=4, ge=1, le=64)
    """How many there are."""


class PLEConfig(ExpertsConfig):
    """Experts of each head beside shared ones."""

    levels: int = Field(default=1, ge=1, le=3)
    """So many layers of experts, one after the other."""
    own_experts: int = Field(default=2, ge=1, le=64)
    """Of each head, in each level."""
    shared_experts: int = Field(default=2, ge=1, le=64)
    """Of all heads, in each level."""


class ESMMConfig(MultiTaskConfig):
    """A tower for each head over the same vectors."""

    hidden: Widths = (64, 32)
    """Widths of each head's tower."""


MultiTaskLike = TypeVar("MultiTaskLike", bound=MultiTaskConfig)


class MultiTask(FieldsModel[MultiTaskLike]):
    """A model that says which logit each head has."""

    @abstractmethod
    def before_towers(self, values: Any, heads: tuple[str, ...]) -> list[Any]:
        """Return each head's input of its tower, `[batch, ...]`, of `[batch, width]` for all."""

    def logit(self, fields: Fields) -> Any:
        """Return the one head's."""
        return self._logits(fields, (_ONLY,))

    def build_heads(self, encoded: Encoded, seed: int, heads: tuple[str, ...]) -> Any:
        """Return one graph of all heads."""
        fields = self.fields(encoded, seed)
        return self.graph_of(fields, self._logits(fields, heads))

    def _logits(self, fields: Fields, heads: tuple[str, ...]) -> Any:
        """Return `[batch, heads]`."""
        each = self.before_towers(fields.flat(self.config.embedding_size), heads)
        logits = [
            to_logit(perceptron(values, self.config, f"tower_{head}"), f"logit_{head}")
            for head, values in zip(heads, each, strict=True)
        ]
        return ops.concatenate(logits, axis=-1) if len(logits) > 1 else logits[0]


class MMoE(MultiTask[MMoEConfig]):
    """Every head's gate chooses among the same experts."""

    name: ClassVar[str] = "mmoe"
    paper: ClassVar[str] = (
        "Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts (KDD 2018)"
    )
    config_class: ClassVar[type[RankingConfig]] = MMoEConfig

    def before_towers(self, values: Any, heads: tuple[str, ...]) -> list[Any]:
        """Return each head's mixture."""
        config = self.config
        experts = ops.stack(
            [perceptron(values, config, f"expert_{number}", config.expert_hidden) for number in range(config.experts)],
            axis=1,
        )
        return [GatedExperts(name=f"gate_{head}")(experts, values) for head in heads]


class PLE(MultiTask[PLEConfig]):
    """A head's gate chooses among its own experts and shared ones, level after level."""

    name: ClassVar[str] = "ple"
    paper: ClassVar[str] = "Tang et al., Progressive Layered Extraction (PLE) (RecSys 2020)"
    config_class: ClassVar[type[RankingConfig]] = PLEConfig

    def before_towers(self, values: Any, heads: tuple[str, ...]) -> list[Any]:
        """Return each head's mixture of the last level."""
        config, given = self.config, dict.fromkeys((*heads, _SHARED), values)
        for level in range(config.levels):
            experts = {
                owner: [
                    perceptron(given[owner], config, f"expert_{level}_{owner}_{number}", config.expert_hidden)
                    for number in range(config.shared_experts if owner == _SHARED else config.own_experts)
                ]
                for owner in given
            }
            offered = {head: [*experts[head], *experts[_SHARED]] for head in heads}
            if level + 1 < config.levels:
                offered[_SHARED] = [expert for each in experts.values() for expert in each]
            given = {
                owner: GatedExperts(name=f"gate_{level}_{owner}")(ops.stack(each, axis=1), given[owner])
                for owner, each in offered.items()
            }
        return [given[head] for head in heads]


class ESMM(MultiTask[ESMMConfig]):
    """Heads share vectors, and nothing else."""

    name: ClassVar[str] = "esmm"
    paper: ClassVar[str] = "Ma et al., Entire Space Multi-Task Model (SIGIR 2018)"
    config_class: ClassVar[type[RankingConfig]] = ESMMConfig

    def before_towers(self, values: Any, heads: tuple[str, ...]) -> list[Any]:
        """Return the vectors and numbers, for each."""
        return [values] * len(heads)
