"""One feature set, written as each engine likes it best, with exact results that can be compared.

Per user and per item, as of a cutoff: count, mean and standard deviation of the values over all time and over the last
30 days; per user also the last 50 items (ties by item id) and the five genres liked most (ties by name). Every engine
uses the same arithmetic, so that the results are equal to the last bit: sums of half stars as integers, one division.
Likes per genre are counted three to a long, 21 bits each; the order of a user's events is one long of second and item.
DuckDB has it twice: so, and in the SQL that one would write who does not count in bits.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.io.sql_text import literal, parquet

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    import duckdb
    from pyspark.sql import Column, DataFrame, SparkSession

LAST_ITEMS, TOP_GENRES, RECENT_DAYS, LIKED_HALF_STARS = 50, 5, 30, 8
_PACKED, _BITS = 3, 21
_RANK_BITS = 20
"""A million items."""
_LAST_RANK = (1 << _RANK_BITS) - 1
_CODE_BITS = 8


def write_item_codes(items: Path, codes: Path) -> list[str]:
    """Write each item's rank by id and its packed genre counters; return the genres in the order of their names."""
    table = pq.read_table(items, columns=["item_id", "genres"], partitioning=None).sort_by("item_id")
    genres = sorted({genre for row in table["genres"].to_pylist() for genre in row})
    longs: list[list[int]] = [[] for _ in range(-(-len(genres) // _PACKED))]
    for row in table["genres"].to_pylist():
        packed = [0] * len(longs)
        for genre in row:
            place, shift = divmod(genres.index(genre), _PACKED)
            packed[place] += 1 << (_BITS * shift)
        for column, value in zip(longs, packed, strict=True):
            column.append(value)
    columns: dict[str, Any] = {"item_id": table["item_id"], "rank": pa.array(range(table.num_rows), pa.int64())}
    pq.write_table(pa.table(columns | {f"g{number}": column for number, column in enumerate(longs)}), codes)
    return genres


_STATISTICS = """
    count(*) AS n, sum(half)::BIGINT AS s, sum(half * half)::BIGINT AS ss,
    count(*) FILTER (recent) AS rn, coalesce(sum(half) FILTER (recent), 0)::BIGINT AS rs,
    coalesce(sum(half * half) FILTER (recent), 0)::BIGINT AS rss
"""
_FIGURES = ", ".join(
    f"{n}::BIGINT AS count{name}, CASE WHEN {n} > 0 THEN {s}::DOUBLE / ({n} * 2) END AS mean{name}, "
    f"CASE WHEN {n} > 0 THEN sqrt(({n} * {ss} - {s} * {s})::DOUBLE) / ({n} * 2) END AS std{name}"
    for name, n, s, ss in (("", "n", "s", "ss"), ("_recent", "rn", "rs", "rss"))
)
_ORDER = f"(second << {_RANK_BITS}) + ({_LAST_RANK} - rank)"
"""SQL of DuckDB's: what is summed, what follows from the sums, and the order of a user's events."""


def _known(events: Path, codes: Path, cutoff: datetime) -> str:
    return f"""
        SELECT user_id, item_id, (value * 2)::INTEGER AS half, (epoch_us(event_time) // 1000000) AS second,
            event_time >= TIMESTAMPTZ '{cutoff.isoformat()}' - INTERVAL {RECENT_DAYS} DAY AS recent,
            codes.* EXCLUDE item_id
        FROM {parquet([events])} JOIN {parquet([codes])} AS codes USING (item_id)
        WHERE event_time < TIMESTAMPTZ '{cutoff.isoformat()}'
    """  # noqa: S608 - the benchmark's own paths


def _copy_items(connection: duckdb.DuckDBPyConnection, known: str, out: Path) -> None:
    connection.execute(
        f"COPY (SELECT item_id, {_FIGURES} FROM (SELECT item_id, {_STATISTICS} FROM ({known}) GROUP BY item_id)) "  # noqa: S608 - as above
        f"TO {literal(str(out / 'items.parquet'))} (FORMAT parquet)"
    )


def plain_duckdb_features(events: Path, codes: Path, cutoff: datetime, out: Path) -> None:
    """Write `users.parquet` and `items.parquet` to `out` with DuckDB, as one writes it in SQL: nothing is packed."""
    import duckdb  # noqa: PLC0415 - each engine is loaded in a process of its own

    known = _known(events, codes, cutoff)
    liked = (
        f"SELECT user_id, genre, count(*) AS likes FROM (SELECT user_id, unnest(genres) AS genre FROM ({known}) "  # noqa: S608 - the benchmark's own paths
        f"JOIN {parquet([codes.with_name('items.parquet')])} USING (item_id) WHERE half >= {LIKED_HALF_STARS}) "
        "GROUP BY user_id, genre"
    )
    best = f"list(genre ORDER BY likes DESC, genre)[1:{TOP_GENRES}]"
    top = f"SELECT user_id, {best} AS top_genres FROM ({liked}) GROUP BY user_id"  # noqa: S608 - as above
    last = f"list(item_id ORDER BY second DESC, rank)[1:{LAST_ITEMS}]"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"COPY (SELECT user_id, {_FIGURES}, last_items, coalesce(top_genres, []) AS top_genres FROM "  # noqa: S608 - as above
            f"(SELECT user_id, {_STATISTICS}, {last} AS last_items FROM ({known}) GROUP BY user_id) "
            f"LEFT JOIN ({top}) USING (user_id)) TO {literal(str(out / 'users.parquet'))} (FORMAT parquet)"
        )
        _copy_items(connection, known, out)


def duckdb_features(events: Path, codes: Path, genres: list[str], cutoff: datetime, out: Path) -> None:
    """Write the same with DuckDB and the packed counters that Spark and Polars count with."""
    import duckdb  # noqa: PLC0415 - each engine is loaded in a process of its own

    longs = range(-(-len(genres) // _PACKED))
    counters = ", ".join(f"sum(CASE WHEN half >= {LIKED_HALF_STARS} THEN g{n} ELSE 0 END) AS g{n}" for n in longs)
    rows = _known(events, codes, cutoff)
    low = (1 << _CODE_BITS) - 1
    packed = ", ".join(
        f"((((g{n // _PACKED}::BIGINT >> {_BITS * (n % _PACKED)}) & {(1 << _BITS) - 1}) << {_CODE_BITS}) + {low - n})"
        for n in range(len(genres))
    )
    names = "[" + ", ".join("'" + genre.replace("'", "''") + "'" for genre in genres) + "]"
    best = f"list_reverse_sort(list_filter([{packed}], lambda c: c > {low}))[1:{TOP_GENRES}]"
    top = f"list_transform({best}, lambda c: ({names})[{low} - (c & {low}) + 1])"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"COPY (SELECT user_id, {_FIGURES}, last_items, {top} AS top_genres FROM (SELECT user_id, {_STATISTICS}, "  # noqa: S608 - as above
            f"arg_max(item_id, {_ORDER}, {LAST_ITEMS}) AS last_items, {counters} FROM ({rows}) GROUP BY user_id)) "
            f"TO {literal(str(out / 'users.parquet'))} (FORMAT parquet)"
        )
        _copy_items(connection, rows, out)


def polars_features(events: Path, codes: Path, genres: list[str], cutoff: datetime, out: Path) -> None:
    """Write the same with Polars' streaming engine."""
    import polars as pl  # noqa: PLC0415 - each engine is loaded in a process of its own

    longs = [f"g{number}" for number in range(-(-len(genres) // _PACKED))]
    half, recent = pl.col("half"), pl.col("recent")
    rows = (
        pl.scan_parquet(events, glob=False, hive_partitioning=False)
        .filter(pl.col("event_time") < cutoff)
        .with_columns(
            half=(pl.col("value") * 2).cast(pl.Int64),
            second=pl.col("event_time").dt.epoch("us") // 1_000_000,
            recent=pl.col("event_time") >= pl.lit(cutoff) - pl.duration(days=RECENT_DAYS),
        )
        .join(pl.scan_parquet(codes, glob=False, hive_partitioning=False), on="item_id", how="inner")
    )
    statistics = [
        pl.len().cast(pl.Int64).alias("n"),
        half.sum().alias("s"),
        (half * half).sum().alias("ss"),
        recent.sum().cast(pl.Int64).alias("rn"),
        (half * recent.cast(pl.Int64)).sum().alias("rs"),
        (half * half * recent.cast(pl.Int64)).sum().alias("rss"),
    ]
    liked = (half >= LIKED_HALF_STARS).cast(pl.Int64)
    order = (pl.col("second") * (1 << _RANK_BITS)) + (_LAST_RANK - pl.col("rank"))
    figures = []
    for name, n, s, ss in (("", "n", "s", "ss"), ("_recent", "rn", "rs", "rss")):
        count, total, squares = pl.col(n), pl.col(s), pl.col(ss)
        spread = (count * squares - total * total).cast(pl.Float64).sqrt()
        figures += [
            count.alias(f"count{name}"),
            pl.when(count > 0).then(total.cast(pl.Float64) / (count * 2)).alias(f"mean{name}"),
            pl.when(count > 0).then(spread / (count * 2)).alias(f"std{name}"),
        ]
    low = (1 << _CODE_BITS) - 1
    packed = [
        (pl.col(f"g{n // _PACKED}") // (1 << (_BITS * (n % _PACKED))) % (1 << _BITS)) * (1 << _CODE_BITS) + (low - n)
        for n in range(len(genres))
    ]
    best = pl.concat_list(packed).list.eval(pl.element().filter(pl.element() > low)).list.sort(descending=True)
    place = low - pl.element() % (1 << _CODE_BITS)
    top = best.list.head(TOP_GENRES).list.eval(place.replace_strict(dict(enumerate(genres)), return_dtype=pl.String))
    (
        rows.group_by("user_id")
        .agg(
            *statistics,
            pl.col("item_id").top_k_by(order, LAST_ITEMS).alias("last_items"),
            *((pl.col(name) * liked).sum() for name in longs),
        )
        .select("user_id", *figures, "last_items", top.alias("top_genres"))
        .sink_parquet(out / "users.parquet", engine="streaming")
    )
    items = rows.group_by("item_id").agg(*statistics).select("item_id", *figures)
    items.sink_parquet(out / "items.parquet", engine="streaming")


def spark_features(  # noqa: PLR0917 - as the others, and the session
    spark: SparkSession, events: Path, codes: Path, genres: list[str], cutoff: datetime, out: Path
) -> None:
    """Write the same with Spark: two aggregations, each with one shuffle of what is aggregated already."""
    from pyspark.sql import functions as F  # noqa: N812, PLC0415 - Spark's usual name; each engine in its own process
    from pyspark.sql.internal import InternalFunction  # noqa: PLC0415 - as above

    from pipelines.io.spark import read_files  # noqa: PLC0415 - as above

    longs = [f"g{number}" for number in range(-(-len(genres) // _PACKED))]
    start = cutoff.timestamp() - RECENT_DAYS * 86_400
    half, second, nothing = F.col("half"), F.col("second"), F.lit(0).cast("long")
    rows = (
        read_files(spark, [events])
        .select(
            "user_id",
            "item_id",
            (F.col("value") * F.lit(2)).cast("long").alias("half"),
            F.unix_seconds("event_time").alias("second"),
        )
        .where(second < F.lit(int(cutoff.timestamp())))
        .withColumn("recent", F.when(second >= F.lit(int(start)), F.lit(1)).otherwise(F.lit(0)).cast("long"))
    )
    statistics = [
        F.count(F.lit(1)).alias("n"),
        F.sum(half).alias("s"),
        F.sum(half * half).alias("ss"),
        F.sum("recent").alias("rn"),
        F.sum(half * F.col("recent")).alias("rs"),
        F.sum(half * half * F.col("recent")).alias("rss"),
    ]
    order = F.shiftleft(second, _RANK_BITS) + (F.lit(_LAST_RANK) - F.col("rank"))
    users = (
        rows.join(F.broadcast(read_files(spark, [codes])), on="item_id", how="inner")
        .select("user_id", "half", "recent", order.alias("order"), *longs)
        .groupBy("user_id")
        .agg(
            *statistics,
            # The bounded queue of pandas-on-Spark: a long for each item that is kept, where `max_by` keeps its id and
            # its order; and with a typed aggregate among them Spark hashes by user, where it would sort.
            InternalFunction.collect_top_k(F.col("order"), LAST_ITEMS, reverse=False).alias("orders"),
            *(F.sum(F.when(half >= LIKED_HALF_STARS, F.col(name)).otherwise(nothing)).alias(name) for name in longs),
        )
        .select("user_id", *_spark_figures(), _spark_last_items(codes), _spark_top_genres(genres).alias("top_genres"))
    )
    _write_one(users, out / "users.parquet")
    _write_one(rows.groupBy("item_id").agg(*statistics).select("item_id", *_spark_figures()), out / "items.parquet")


def _write_one(rows: DataFrame, path: Path) -> None:
    rows.write.parquet(str(path))


def _spark_figures() -> list[Column]:
    from pyspark.sql import functions as F  # noqa: N812, PLC0415 - as above

    columns = []
    for name, n, s, ss in (("", "n", "s", "ss"), ("_recent", "rn", "rs", "rss")):
        count, total = F.col(n), F.col(s)
        spread = F.sqrt((count * F.col(ss) - total * total).cast("double"))
        columns += [
            count.alias(f"count{name}"),
            F.when(count > 0, total.cast("double") / (count * F.lit(2))).alias(f"mean{name}"),
            F.when(count > 0, spread / (count * F.lit(2))).alias(f"std{name}"),
        ]
    return columns


def _spark_last_items(codes: Path) -> Column:
    """Return `last_items`: the ids whose ranks stand in the low bits of `orders`."""
    from pyspark.sql import functions as F  # noqa: N812, PLC0415 - as above

    names = pq.read_table(codes, columns=["item_id"], partitioning=None)["item_id"].to_pylist()
    ids = F.from_json(F.lit(json.dumps(names)), "array<string>")  # which Spark works out once
    last = F.lit(_LAST_RANK)
    return F.transform("orders", lambda order: F.get(ids, (last - order.bitwiseAND(last)).cast("int"))).alias(
        "last_items"
    )


def _spark_top_genres(genres: list[str]) -> Column:
    from pyspark.sql import functions as F  # noqa: N812, PLC0415 - as above

    low = (1 << _CODE_BITS) - 1
    packed = F.array(
        *(
            F.shiftleft(
                F.shiftright(F.col(f"g{n // _PACKED}"), _BITS * (n % _PACKED)).bitwiseAND(F.lit((1 << _BITS) - 1)),
                _CODE_BITS,
            )
            + F.lit(low - n)
            for n in range(len(genres))
        )
    )
    best = F.slice(F.sort_array(F.filter(packed, lambda code: code > F.lit(low)), asc=False), 1, TOP_GENRES)
    names = F.array(*(F.lit(genre) for genre in genres))
    return F.transform(best, lambda code: F.get(names, (F.lit(low) - code.bitwiseAND(F.lit(low))).cast("int")))
