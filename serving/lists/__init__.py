"""The lists that users are shown: questions of the past, answered by the recommender's own engine on files.

    questions/<id>/ ──▶ Engine (users' fields from a file, the clock) ─┬─▶ what would be ranked ──▶ recalled/<id>/
                          ▲                                            │   and what channels say of it
                          │ scores                                     └─▶ lists
    SavedModel ──▶ a model server of its own                                 │
                                                                             ▼
    answers, simple lists ───────────────────────────────────────────────▶ figures

`questions` loads, `stored_users` stands in for Redis, `answering` asks the engine, `rankers` are the models that are
asked, `intervals` is arithmetic, `simple` chooses the simple lists' variants on validation origins. The commands:
`candidates` writes what models learn from, `comparison` measures several models on validation origins, `job` and
`report` one on a test origin.
"""
