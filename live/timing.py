"""Time several ways to do the same thing on this machine."""

from __future__ import annotations

import time
from typing import Callable, Hashable, Mapping, TypeVar

import numpy as np

from teachcam import ending

PAUSE = 0.005  # seconds between two runs, as between two frames: a core that never rests is clocked differently

Way = TypeVar("Way", bound=Hashable)


def median_times(ways: Mapping[Way, Callable[[], object]], num_runs: int) -> dict[Way, float]:
    """Return the median milliseconds of each. They take turns, so that a disturbance meets all of them."""
    times: dict[Way, list[float]] = {way: [] for way in ways}
    for _ in range(num_runs):
        for way, run in ways.items():
            ending.sleep(PAUSE)
            started = time.perf_counter()
            run()
            times[way].append(1000 * (time.perf_counter() - started))
    return {way: float(np.median(values)) for way, values in times.items()}
