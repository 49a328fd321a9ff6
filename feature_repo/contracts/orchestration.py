"""What the DAGs ask of the Airflow that runs them: whoever sets one up provides it."""

from __future__ import annotations

POOL, POOL_SLOTS = "kestrel_machine", 4
"""The Airflow pool of jobs that keep a machine busy: each takes a slot, and a measurement of latency takes them all."""
POOL_MEANING = "Jobs that keep a machine busy; a measurement of latency takes all slots, and so runs beside none."
TASK_TIMEOUT_HOURS, TASK_TIMEOUT_HOURS_MAX = 6.0, 8760.0
"""How long a task may take, in hours: many times what the largest measured job does (docs/speed.md). At most a year."""
