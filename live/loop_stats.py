"""Measure the live loop: frames, frames per second, latency and the frames' age, in a fixed amount of memory."""

from __future__ import annotations

import logging
from collections import deque

import numpy as np

logger = logging.getLogger(__name__)


class Latency:
    """Keeps the latest durations and computes their percentiles."""

    def __init__(self, max_count: int = 10_000):
        """Keep the latest `max_count` durations; 10,000 are five minutes at 30 FPS."""
        self._seconds: deque[float] = deque(maxlen=max_count)

    def add(self, seconds: float) -> None:
        """Add one duration."""
        self._seconds.append(seconds)

    def percentile(self, percent: float) -> float:
        """Return a percentile in milliseconds, or NaN if there are no durations."""
        return float(np.percentile(self._seconds, percent)) * 1000 if self._seconds else float("nan")


class LoopStats:
    """Counts the frames of a live loop and measures its times.

    Attributes:
        num_frames: How many frames were classified.
        fps: Frames classified per second, as a moving average. 0 before the second frame.
    """

    def __init__(self):
        self.num_frames, self.fps = 0, 0.0
        self._latency, self._age = Latency(), Latency()
        self._interval: float | None = None  # seconds from one prediction to the next, averaged
        self._last_time: float | None = None

    def add(self, latency: float, age: float, now: float) -> None:
        """Count one frame.

        Args:
            latency: Seconds from having the frame to its prediction.
            age: Seconds from the frame's capture to its prediction.
            now: The time of the prediction, from time.monotonic().
        """
        self.num_frames += 1
        self._latency.add(latency)
        self._age.add(age)
        if self._last_time is not None:
            interval = now - self._last_time
            self._interval = interval if self._interval is None else 0.9 * self._interval + 0.1 * interval
            self.fps = 1 / self._interval if self._interval else 0.0
        self._last_time = now

    def log(self, dropped: int, provider: str) -> None:
        """Log one line about the whole loop.

        Args:
            dropped: Frames that the camera took and the loop had no time for.
            provider: The execution provider that ran the model last.
        """
        if not self.num_frames:
            logger.info("no frame was classified")
            return
        latency, age = ([times.percentile(percent) for percent in (50, 99)] for times in (self._latency, self._age))
        logger.info(
            f"{self.num_frames} frames, {dropped} dropped, on {provider}; "
            f"latency p50 {latency[0]:.1f} ms, p99 {latency[1]:.1f} ms; "
            f"frame age p50 {age[0]:.1f} ms, p99 {age[1]:.1f} ms"
        )
