"""The list that users are shown, measured: questions of the past, answered by the recommender's own engine on files.

    questions/<id>/ ──▶ Engine (users' fields from a file, the clock, a model server of its own) ──▶ lists
                                                                                                     │
    answers, simple lists ───────────────────────────────────────────────────────────────▶ figures ◀─┘

`stored_users` stands in for Redis, `answering` asks the engine, `metrics` and `intervals` are arithmetic, `simple`
chooses the simple lists' variants on validation origins, `report` puts it all into one record. `job` is the command.
"""
