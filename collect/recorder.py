"""Records sessions: chooses frames at a rate, writes them beside the camera's thread, and can take them back.

The recorder hangs on `Camera.tap` and so is handed every frame, however slow the window or the disk is; what the disk
can't take at once waits in a queue, and what does not fit there is counted and said, never lost in silence.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from pathlib import Path

from teachcam.collect.camera import Camera, Frame
from teachcam.collect.dataset import Session, append_line, check_label, move_to_rejected

QUEUE_FRAMES = 60  # 2 s at 30 FPS; 166 MB of 720p at the most


class Recorder:
    """Records what a camera gives into `data/<label>/`, a session at a time.

    With a live camera it takes its frames from the camera's own thread; frames of a file are handed to `offer`.
    Errors of writing (DatasetError: a full disk) are raised by the next `check`, `start` or `stop`.
    """

    def __init__(self, camera: Camera, data: Path | str, label: str, fps: float = 5.0, note: str = ""):
        """Record at `fps` frames a second, 0 for every frame; `note` goes into the session's line."""
        self.label = check_label(label)
        self.data = Path(data)
        self.overrun = 0  # frames that were due and did not fit in the queue
        self.session: Session | None = None  # the one that is open
        self._camera, self._fps, self._note = camera, fps, note
        self._period = 1 / fps if fps else 0.0
        self._due = self._last = 0.0  # seconds, of Frame.time
        self._most: int | None = None
        self._taken: list[float] = []  # Frame.time of the frames of the session
        self._bursts: list[tuple[Session, list[Path]]] = []  # every recording and shot, and its frames on disk
        self._shots: dict[str, Session] = {}  # single shots of a label share a session: one person, place and light
        self._lock = threading.Lock()
        self._queue: queue.Queue = queue.Queue(QUEUE_FRAMES)
        self._error: Exception | None = None
        self._writer = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._writer.start()
        if camera.live:
            camera.tap = self.offer

    @property
    def saved(self) -> Counter[str]:
        """How many frames of each label this recorder has on disk."""
        return Counter({label: sum(counts) for label, counts in self._counts().items()})

    @property
    def sessions(self) -> Counter[str]:
        """How many sessions of each label have a frame on disk."""
        return Counter({label: sum(count > 0 for count in counts) for label, counts in self._counts().items()})

    def _counts(self) -> dict[str, list[int]]:
        """Return each label's frames on disk, by session."""
        sessions: Counter[Session] = Counter()
        for session, paths in list(self._bursts):
            sessions[session] += len(paths)
        counts: dict[str, list[int]] = {}
        for session, count in sessions.items():
            counts.setdefault(session.label, []).append(count)
        return counts

    @property
    def recording(self) -> bool:
        """Whether a session is open."""
        return self.session is not None

    def start(self, most: int | None = None) -> None:
        """Begin a session; it ends by itself after `most` frames, if given."""
        self.check()
        self.stop()
        with self._lock:
            self._due, self._most, self._taken = float("-inf"), most, []
            self.session = self._new_session()
            self._bursts.append((self.session, []))

    def stop(self) -> None:
        """End the session; all of it is on disk when this returns."""
        with self._lock:
            self.session = None
        self._queue.join()
        self.check()

    def shoot(self, frame: Frame) -> None:
        """Save one frame."""
        self.check()
        session = self._shots.setdefault(self.label, self._new_session())
        self._bursts.append((session, []))
        self._queue.put((frame, *self._bursts[-1]))

    def undo(self) -> int:
        """Take the last session or shot back: its files move to data/.rejected/. Return how many."""
        self.stop()
        if not self._bursts:
            return 0
        session, paths = self._bursts.pop()
        for path in paths:
            move_to_rejected(self.data, path)
        if paths:
            append_line(self.data, {"session": session.id, "label": session.label, "undone": len(paths)})
        return len(paths)

    def switch(self, label: str) -> None:
        """Record another label from now on; an open session ends."""
        check_label(label)
        self.stop()
        self.label = label

    def offer(self, frame: Frame) -> bool:
        """Take the frame if a session is open and one is due; say whether it was taken."""
        interval, self._last = frame.time - self._last, frame.time
        with self._lock:
            # The frame nearest to the due time is taken: a camera's jitter would else cost every other frame.
            early = 0.5 * min(interval, self._period)
            if self.session is None or frame.time < self._due - early or self._most == 0:
                return False
            # The grid of due times stays where it is, unless the camera fell a whole period behind it.
            late = frame.time - self._due
            self._due = self._period + (frame.time if late > self._period else self._due)
            try:  # a file can wait, a camera can't
                self._queue.put((frame, *self._bursts[-1]), block=not self._camera.live)
            except queue.Full:
                self.overrun += 1
                return False
            self._most = None if self._most is None else self._most - 1
            self._taken.append(frame.time)
        return True

    def check(self) -> None:
        """Raise what went wrong in writing, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    @property
    def done(self) -> bool:
        """Whether the session has all the frames it was started for, on disk or on their way."""
        return self._most == 0

    @property
    def rate(self) -> float:
        """Frames a second that the last session came to, 0 for fewer than two."""
        times = self._taken
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0

    def close(self) -> None:
        """End everything that is open."""
        self._camera.tap = None
        try:
            self.stop()
        finally:
            self._queue.put(None)
            self._writer.join()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _new_session(self) -> Session:
        known = {"camera": self._camera.source, "fps": self._fps, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        return Session(self.data, self.label, **known, **({"note": self._note} if self._note else {}))

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            frame, session, paths = item
            try:
                if self._error is None:
                    paths.append(session.save(frame.image))
            except Exception as error:
                self._error = error
            finally:
                self._queue.task_done()
