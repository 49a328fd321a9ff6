"""The entities: what features are keyed by."""

from __future__ import annotations

from feast import Entity, ValueType

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.datasets import ITEM_ID, USER_ID


def feast_entity(column: Column) -> Entity:
    """Return the entity that a key column names. TypeError for a key that is not a string: every id here is one."""
    if column.dtype is not Dtype.STRING:
        msg = f"entity {column.name}: expected a string key, received {column.dtype}"
        raise TypeError(msg)
    return Entity(name=column.name, join_keys=[column.name], value_type=ValueType.STRING, description=column.meaning)


ENTITIES = {column.name: feast_entity(column) for column in (USER_ID, ITEM_ID)}
"""Column name → entity, for every key of the feature groups."""
