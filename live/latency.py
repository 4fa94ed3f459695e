"""Times, kept in a fixed amount of memory however long the loop runs."""

from __future__ import annotations

from collections import deque

import numpy as np


class Latency:
    """The latest times in seconds, and their percentiles in milliseconds."""

    def __init__(self, keep: int = 10_000):
        self._seconds: deque[float] = deque(maxlen=keep)

    def add(self, seconds: float) -> None:
        """Note one."""
        self._seconds.append(seconds)

    def percentile(self, percent: float) -> float:
        """Return a percentile in milliseconds, of the last `keep` times; NaN where there are none."""
        return float(np.percentile(self._seconds, percent)) * 1000 if self._seconds else float("nan")
