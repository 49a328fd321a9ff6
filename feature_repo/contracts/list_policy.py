"""How lists are made of what channels find and a model scores: parts of a release, fitted on validation.

Quotas say how many of the candidates each channel gives. Re-ranking mixes the model's order with the order of one
channel that tells users apart. Both are files of a release (`contracts.manifests.FILE_KINDS`), each one JSON object.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from feature_repo.contracts.channels import KNOWN_CHANNELS, PERSONAL_CHANNELS
from feature_repo.contracts.manifests import PartKind
from feature_repo.contracts.publishing import CorruptRecordError

if TYPE_CHECKING:
    from collections.abc import Mapping

QUOTAS, RERANKING = "quotas", "reranking"
"""Names of the parts, and of the fields of a policy's record; a part's file is `<name>.json`."""
POLICY_PARTS = MappingProxyType({QUOTAS: PartKind.QUOTAS, RERANKING: PartKind.RERANKING})
POLICY_ARTIFACTS = "release"
"""Folder among the artifacts of a candidate's MLflow run that has the files of its parts."""
QUOTA_MAX = 1000


@dataclass(frozen=True, slots=True)
class Reranking:
    """Another order that has a share in the model's."""

    channel: str = ""
    """Whose; empty where the model's order stays."""
    share: float = 0.0
    """From 0, the model's order alone, to 1, the channel's alone."""

    @classmethod
    def from_json(cls, record: Mapping[str, object], source: str) -> Self:
        """Read `{"channel": …, "share": …}`; an empty object leaves the model's order.

        Raises:
            CorruptRecordError: It is something else.
        """
        found = {"channel": "", "share": 0.0} | dict(record)
        channel, share = found.pop("channel"), found.pop("share")
        if found or not isinstance(channel, str) or isinstance(share, bool) or not isinstance(share, int | float):
            received = f"received {dict(record)!r:.200}"
            msg = f'{source}: expected {{"channel": "ease", "share": 0.3}}, {received}; mend it'
            raise CorruptRecordError(msg)
        nobody = () if share else ("",)
        if not 0 <= share <= 1 or channel not in (*PERSONAL_CHANNELS, *nobody):
            msg = (
                f"{source}: expected a share from 0 to 1 of one of the channels {', '.join(PERSONAL_CHANNELS)}, which "
                f"tell users apart, received {share!r:.40} of {channel!r:.80}; mend it"
            )
            raise CorruptRecordError(msg)
        return cls(channel, float(share))


@dataclass(frozen=True, slots=True)
class ListPolicy:
    """Everything that lists are made by beside channels and model."""

    quotas: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Channel → its share of the candidates, in proportion to the others'; of those that are not named, the declared.
    """
    reranking: Reranking = Reranking()

    def record(self) -> dict[str, dict[str, object]]:
        """Return part → content of its file."""
        return {QUOTAS: dict(self.quotas), RERANKING: asdict(self.reranking)}

    @classmethod
    def from_json(cls, record: object, source: str) -> Self:
        """Read what `record` returns, whatever was found there; what is absent is as by default.

        Raises:
            CorruptRecordError: It is something else.
        """
        if not isinstance(record, dict) or (record.keys() - POLICY_PARTS.keys()):
            received = sorted(map(str, record)) if isinstance(record, dict) else record
            msg = f"{source}: expected an object of {', '.join(POLICY_PARTS)}, received {received!r:.200}; mend it"
            raise CorruptRecordError(msg)
        contents: dict[str, dict[str, object]] = {name: {} for name in POLICY_PARTS}
        for name, content in record.items():
            if not isinstance(content, dict):
                msg = f"{source}: {name}: expected a JSON object, received {content!r:.80}; mend it"
                raise CorruptRecordError(msg)
            contents[name] = content
        return cls(_checked_quotas(contents[QUOTAS], source), Reranking.from_json(contents[RERANKING], source))


DECLARED = ListPolicy()
"""Of whoever has no other: the declared quotas, and the model's order."""


def _checked_quotas(quotas: Mapping[str, object], source: str) -> Mapping[str, int]:
    """Return quotas of channels that there can be; CorruptRecordError names the others, and what is no share."""
    if unknown := sorted(quotas.keys() - set(KNOWN_CHANNELS)):
        msg = f"{source}: expected channels among {', '.join(KNOWN_CHANNELS)}, received {unknown!r:.200}; mend it"
        raise CorruptRecordError(msg)
    checked = {name: share for name, share in quotas.items() if type(share) is int and 0 <= share <= QUOTA_MAX}
    if len(checked) < len(quotas):
        wrong = {name: share for name, share in quotas.items() if name not in checked}
        msg = f"{source}: expected quotas, whole numbers from 0 to {QUOTA_MAX}, received {wrong!r:.200}; mend it"
        raise CorruptRecordError(msg)
    return MappingProxyType(checked)
