"""When things happen: more in the evening than at night, at weekends than on weekdays, in winter than in summer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.synthetic.scale import LogScale

_HOURS = np.array(
    [30, 20, 13, 9, 7, 8, 12, 20, 28, 34, 38, 41, 44, 44, 43, 45, 50, 57, 68, 82, 95, 100, 85, 55], dtype=np.float64
)
"""Of a day in UTC, the busiest is 100."""
_WEEKDAYS = np.array([0.93, 0.90, 0.91, 0.94, 1.00, 1.22, 1.26])
"""From Monday to Sunday."""
_YEAR_SWING = 0.2
_YEAR_DAYS = 365.25
_MONDAY = 4
"""1970-01-05 was one."""


class Seasons:
    """The density of events over the log, as an invertible distribution over its seconds."""

    def __init__(self, scale: LogScale) -> None:
        hour = np.arange(scale.days * 24)
        day = scale.first_second // 86_400 + hour // 24
        year = 1 + _YEAR_SWING * np.cos(2 * np.pi * (day % _YEAR_DAYS) / _YEAR_DAYS)
        density = _HOURS[hour % 24] * _WEEKDAYS[(day - _MONDAY) % 7] * year
        self._share = np.concatenate([[0.0], np.cumsum(density) / density.sum()])
        self._second = np.arange(len(self._share)) * 3600.0

    def seconds(self, share: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the second, from the log's beginning, by which a `share` (0 to 1) of all events has happened."""
        return np.asarray(np.interp(share, self._share, self._second), dtype=np.int64)

    def share(self, second: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of all events that has happened by a second from the log's beginning."""
        return np.asarray(np.interp(second, self._second, self._share))
