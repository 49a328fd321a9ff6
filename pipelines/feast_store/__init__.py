"""Feast as the data plane uses it: the strict offline store, and the store made in process from the settings.

errors         what can go wrong between feature tables, offline store and online store
tables         Parquet feature tables as DuckDB reads them
point_in_time  the strict as-of join, as SQL
offline        the offline store that Feast loads by the name of its class
store          RepoConfig and FeatureStore from the settings
quick_import   Feast imported in a third of the time
online         what lies in Redis beside what Feast's client shows: whose rows, and which have to go
"""
