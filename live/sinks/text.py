"""Answers as lines of text on stdout: JSON for every frame, or the label whenever it changes."""

from __future__ import annotations

import json
import sys

from teachcam.live.sinks.base import LINES, Result, ThreadedSink


class JsonLines(ThreadedSink):
    """One JSON object a line on stdout, for programs."""

    def __init__(self, live: bool):
        """See Written."""
        self._stdout = sys.stdout  # the real one: while a model is loaded sys.stdout is another, for every thread
        super().__init__(live, LINES)

    def _name(self) -> str:
        return "stdout"

    def _prepare(self, result: Result) -> str:
        answer = result.answer
        return json.dumps(
            {
                "frame": result.frame.number,
                "label": answer.label,
                "confidence": round(answer.confidence, 6),
                "probabilities": {label: round(value, 6) for label, value in answer.probabilities.items()},
                "latency_ms": round(1000 * result.latency, 3),
                "age_ms": round(1000 * result.age, 3),
            }
        )

    def _write(self, entry: str) -> None:
        print(entry, file=self._stdout, flush=True)


class LabelChanges(JsonLines):
    """One line on stdout whenever the answer changes, for people."""

    _last: str | None = None

    def _prepare(self, result: Result) -> str | None:
        if result.answer.label == self._last:
            return None
        self._last = result.answer.label
        return f"{result.frame.time:8.2f} s  {self._last}  {result.answer.confidence:.2f}"
