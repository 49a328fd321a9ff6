"""Daily statistics tables: computed by day in DuckDB, written by day."""
