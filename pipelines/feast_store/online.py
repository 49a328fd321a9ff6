"""What lies in Redis: whose features, as Feast keys them, and which have to go.

Feast's own deletion matches keys by a pattern that ends with the project, so it would reach into every project whose
name has the same ending. Here keys are taken apart instead. The layout is in docs/feast-redis-layout.md.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, cast

from feast.infra.key_encoding_utils import serialize_entity_key_prefix
from feast.infra.online_stores.helpers import _mmh3
from feast.value_type import ValueType

if TYPE_CHECKING:
    from collections.abc import Collection

    import redis
    from feast import FeatureView

_SCAN_COUNT = 10_000
_GLOB_SPECIAL = re.compile(rb"([\\*?\[\]^])")
_VALUE_HEADER = struct.Struct("<II")


def stored_entities(client: redis.Redis, project: str, join_key: str) -> dict[str, bytes]:
    """Return the entities of a join key that have a hash in Redis: id → the hash's key."""
    prefix = serialize_entity_key_prefix([join_key])
    pattern = _GLOB_SPECIAL.sub(rb"\\\1", prefix) + b"*"
    found = {}
    for key in client.scan_iter(match=pattern, count=_SCAN_COUNT):
        entity = _entity_of(key[len(prefix) :], project.encode())
        if entity is not None:
            found[entity] = key
    return found


def drawn_entities(client: redis.Redis, project: str, join_key: str, most: int) -> set[str]:
    """Return entities of a join key that have a hash: all where Redis has at most `most` keys, else `most` drawn keys'.

    Either way Redis is asked for no more than `most` keys.
    """
    if cast("int", client.dbsize()) <= most:
        return set(stored_entities(client, project, join_key))
    prefix = serialize_entity_key_prefix([join_key])
    with client.pipeline(transaction=False) as pipeline:
        for _ in range(most):
            pipeline.randomkey()
        keys = [key for key in pipeline.execute() if key is not None and key.startswith(prefix)]
    found = {_entity_of(key[len(prefix) :], project.encode()) for key in keys}
    return {entity for entity in found if entity is not None}


def _entity_of(tail: bytes, project: bytes) -> str | None:
    """Return the id in a key's bytes after the prefix, or None where the key is of another project or kind."""
    if len(tail) < _VALUE_HEADER.size:
        return None
    kind, length = _VALUE_HEADER.unpack_from(tail)
    value, rest = tail[_VALUE_HEADER.size :][:length], tail[_VALUE_HEADER.size + length :]
    return value.decode() if kind == ValueType.STRING.value and rest == project else None


def forget_absent(client: redis.Redis, view: FeatureView, stored: dict[str, bytes], present: Collection[str]) -> int:
    """Delete a view's fields of every stored entity that is not `present`; return how many had any.

    The entity's fields of other views stay. Redis drops a hash by itself when its last field goes.
    """
    fields = [f"_ts:{view.name}".encode(), *(_mmh3(f"{view.name}:{feature.name}") for feature in view.features)]
    with client.pipeline(transaction=False) as pipeline:
        for entity in sorted(stored.keys() - set(present)):
            pipeline.hdel(stored[entity], *fields)  # type: ignore[arg-type]  # redis-py takes bytes; its types do not
        return sum(1 for deleted in pipeline.execute() if deleted)
