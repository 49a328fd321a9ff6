"""The DAGs' demands on the Airflow that runs them; its set-up meets them."""

from __future__ import annotations

POOL, POOL_SLOTS = "kestrel_machine", 4
"""The Airflow pool of jobs that keep a machine busy: each takes a slot, and a measurement of latency takes them all."""
_MEANING = "Jobs that keep a machine busy; a measurement of latency takes all slots, and so runs beside none of them."
POOL_COMMAND = ("-m", "airflow", "pools", "set", POOL, str(POOL_SLOTS), _MEANING)
"""The interpreter's arguments that make the pool, or set it right. Without it such jobs would never start."""
TASK_TIMEOUT_HOURS, TASK_TIMEOUT_HOURS_MAX = 6.0, 8760.0
"""How long a task may take, in hours: many times what the largest measured job does (docs/speed.md). At most a year."""
