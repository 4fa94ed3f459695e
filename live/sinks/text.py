"""Print results on stdout: a JSON object for every frame, or a line whenever the label changes."""

from __future__ import annotations

import json

from teachcam.live.sinks.base import MAX_QUEUED_LINES, FrameResult, ThreadedSink


class JsonLines(ThreadedSink):
    """Prints one JSON object per line for every frame, for programs to read.

    Args:
        live: True for a live camera, whose results are dropped when the reader of stdout is too slow.
    """

    def __init__(self, live: bool):
        super().__init__(live, MAX_QUEUED_LINES)

    def _name(self) -> str:
        return "stdout"

    def _prepare(self, result: FrameResult) -> str | None:
        return json.dumps(result.to_dict())

    def _write(self, entry: str) -> None:
        print(entry, flush=True)


class LabelChanges(JsonLines):
    """Prints one line whenever the predicted label changes, for people to read. For a folder, one line per image."""

    _last: str | None = None

    def _prepare(self, result: FrameResult) -> str | None:
        prediction, frame = result.prediction, result.frame
        if frame.file is not None:
            return f"{frame.file}  {prediction.label}  {prediction.confidence:.2f}"
        if prediction.label == self._last:
            return None
        self._last = prediction.label
        return f"{frame.time:8.2f} s  {prediction.label}  {prediction.confidence:.2f}"
