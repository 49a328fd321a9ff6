"""Which columns a kind of training set has beside labels and features of time, and which of all models read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.channels import channels, fit_date
from feature_repo.contracts.datasets import USER_ID
from feature_repo.contracts.manifests import TrainingKind
from feature_repo.contracts.signatures import model_inputs, pair_inputs

if TYPE_CHECKING:
    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.features import FeatureService
    from feature_repo.contracts.schemas import Schema


def pair_columns(schema: Schema) -> tuple[Column, ...]:
    """Return what recall says of a row's user and item: each channel's figures, then the date of its fit."""
    return tuple(
        column
        for channel in channels(schema).values()
        for column in (*(figure for _, figure in channel.features), fit_date(channel.name))
    )


def encoded_columns(schema: Schema, kind: TrainingKind, service: FeatureService) -> tuple[Column, ...]:
    """Return the columns that models may read, whose encodings are fitted on train rows."""
    pairs = pair_inputs(schema).values() if kind is TrainingKind.LISTS else ()
    return (USER_ID, *(each.column for each in (*model_inputs(service), *pairs)))


def definition_hashes(schema: Schema, kind: TrainingKind, service: FeatureService) -> dict[str, str]:
    """Return feature → hash of its definition; of a pair feature, its channel's."""
    if kind is not TrainingKind.LISTS:
        return service.feature_hashes
    pairs = {name: each.pair.definition for name, each in pair_inputs(schema).items() if each.pair}
    return service.feature_hashes | pairs
