"""Rows of features → Redis, a batch in one go: the bytes of all its commands are made by Arrow, and sent at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.online_stores.helpers import _mmh3

from pipelines.feast_store.value_bytes import key_bytes, time_bytes, value_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

_NOTHING = pa.scalar(b"", pa.binary())


def feature_field(view: str, feature: str) -> bytes:
    """Return the field of a hash that holds a feature."""
    field: bytes = _mmh3(f"{view}:{feature}")
    return field


def time_field(view: str) -> bytes:
    """Return the field of a hash that holds the event time of a view's row."""
    return f"_ts:{view}".encode()


def write_rows(  # noqa: PLR0917 - whose rows, where to, under which names
    client: redis.Redis,
    rows: pa.RecordBatch,
    project: str,
    view: str,
    join_key: str,
    features: Sequence[str],
    time: str,
) -> None:
    """Write one HSET for each row, each of them atomic, and wait until Redis has them all.

    Args:
        client: The online store.
        rows: With the columns `join_key`, `features` and `time`, a timestamp.
        project: Feast's project, the end of every key.
        view: The feature view's name.
        join_key: The name of the entity's key, a string.
        features: What is written.
        time: The event time's column.

    Raises:
        redis.RedisError: Redis cannot be reached, or refuses a command.
    """
    microseconds = rows.column(time).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    fields = {time_field(view): time_bytes(microseconds)}
    fields |= {feature_field(view, name): value_bytes(rows.column(name)) for name in features}
    send(client, hset_commands(key_bytes(join_key, rows.column(join_key), project), fields), rows.num_rows)


def hset_commands(keys: pa.BinaryArray, fields: dict[bytes, pa.BinaryArray]) -> pa.Buffer:
    """Return `HSET key field value ...` for each key as Redis reads commands: arrays of strings with their lengths.

    https://redis.io/docs/latest/develop/reference/protocol-spec
    """
    parts: list[pa.Array | pa.Scalar] = []
    constant = b"*%d\r\n$4\r\nHSET\r\n" % (2 + 2 * len(fields))
    for field, values in ((None, keys), *fields.items()):
        if field is not None:
            constant += b"$%d\r\n%b\r\n" % (len(field), field)
        parts += [pa.scalar(constant + b"$", pa.binary()), _lengths(values), pa.scalar(b"\r\n", pa.binary()), values]
        constant = b"\r\n"
    commands = pc.binary_join_element_wise(*parts, pa.scalar(constant, pa.binary()), _NOTHING)
    return commands.buffers()[2] if len(commands) else pa.py_buffer(b"")


def send(client: redis.Redis, commands: pa.Buffer, count: int) -> None:
    """Send `count` commands over one connection and read as many replies; the first refusal is raised."""
    connection: Any = client.connection_pool.get_connection()  # redis-py types it in part only
    try:
        connection.send_packed_command([memoryview(commands)])
        for _ in range(count):
            connection.read_response()
    except BaseException:
        connection.disconnect()  # replies that nobody reads would answer somebody else's commands
        raise
    finally:
        client.connection_pool.release(connection)


def _lengths(values: pa.BinaryArray) -> pa.Array:
    return pc.binary_length(values).cast(pa.string()).cast(pa.binary())
