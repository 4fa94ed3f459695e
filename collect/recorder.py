"""Record sessions from a camera: choose images at a rate, write them in a separate thread, and undo recordings.

The recorder gets every image of a live camera from the camera's own thread, however slow a window or the disk is.
Images wait in a queue for the disk. Those that do not fit are counted in `dropped`.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import queue
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Callable

from teachcam import ending
from teachcam.collect.camera import Camera, Frame
from teachcam.collect.dataset import TIME_FORMAT, Session, append_line, existing_labels, move_to_rejected
from teachcam.collect.names import check_label, check_place
from teachcam.collect.session_lines import describe_damage
from teachcam.errors import DatasetError
from teachcam.files import expand

logger = logging.getLogger(__name__)

QUEUE_SIZE = 60  # images: 2 s at 30 FPS, and at most 166 MB at 1280x720


class Recorder:
    """Records the images of a camera into `data/<label>/`, one session after another.

    It gets each frame of the camera by itself. If writing fails (on a full disk), the next call of `check_writer`,
    `start`, `stop` or `snapshot` raises DatasetError.

    Attributes:
        label: The label of the next session.
        data: The folder of the dataset.
        session: The open session, or None.
        dropped: How many images were due, and did not fit in the queue.
    """

    def __init__(
        self,
        camera: Camera,
        data: Path | str,
        label: str,
        fps: float = 5.0,
        note: str = "",
        place: str = "",
        on_saved: Callable[[Path], object] | None = None,
    ):
        """Prepare to record; `start` begins a session.

        Args:
            camera: An open camera.
            data: The folder of the dataset. It is created with the first image.
            label: The label to begin with.
            fps: Images to record per second. 0 records all.
            note: Is written into the line of each session in sessions.jsonl.
            place: The same; accuracy is measured in places that training has not seen.
            on_saved: Called in the writing thread with each file that is on disk.
        """
        self.data = expand(data)
        self.label = check_label(label, existing_labels(self.data))
        if damage := describe_damage(self.data):
            logger.warning(damage)
        self.session: Session | None = None
        self.dropped = 0
        self._camera = camera
        self._metadata = {"fps": fps, **{key: value for key, value in (("note", note), ("place", place)) if value}}
        self._on_saved = on_saved
        self._period = 1 / fps if fps else 0.0  # seconds between two images
        self._due = self._last_time = 0.0  # seconds, of Frame.time
        self._remaining: int | None = None  # images until the session is complete
        self._times: list[float] = []  # Frame.time of each image of the session
        self._takes: list[tuple[Session, list[Path]]] = []  # each recording or single shot, with its files
        # Single shots share a session (same person, place and light), by label and camera.
        self._shots: dict[tuple[str, str], Session] = {}
        self._lock = threading.Lock()
        self._queue: queue.Queue = queue.Queue(QUEUE_SIZE)
        self._error: Exception | None = None
        self._ended = threading.Event()  # whether the writing thread has, or was given up
        threading.Thread(target=self._write, name="recorder", daemon=True).start()
        atexit.register(self.close)  # so that Python, ending, waits until the queue is on disk
        ending.hold(self.close)
        camera.on_each_frame(self.add_frame)

    # What is recorded

    @property
    def recording(self) -> bool:
        """True while a session is open."""
        return self.session is not None

    @property
    def done(self) -> bool:
        """True once the session has as many images as `start` asked for. Some may still be in the queue."""
        return self._remaining == 0

    @property
    def saved(self) -> Counter[str]:
        """The number of images of each label that this recorder has written, without undone ones."""
        return Counter({label: sum(counts) for label, counts in self._counts().items()})

    @property
    def sessions(self) -> Counter[str]:
        """The number of sessions of each label with at least one image on disk."""
        return Counter({label: sum(count > 0 for count in counts) for label, counts in self._counts().items()})

    @property
    def measured_fps(self) -> float:
        """Images per second of the last session. 0 for fewer than two images."""
        times = self._times
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0

    def _counts(self) -> dict[str, list[int]]:
        """Return the number of images on disk of each label, by session."""
        sessions: Counter[Session] = Counter()
        for session, paths in list(self._takes):
            sessions[session] += len(paths)
        counts: dict[str, list[int]] = {}
        for session, count in sessions.items():
            counts.setdefault(session.label, []).append(count)
        return counts

    # What the user does

    def start(self, max_images: int | None = None) -> Session:
        """Begin a session, and return it. An open one is stopped first.

        Args:
            max_images: The session takes no more images after so many, and `done` becomes True.
        """
        self.check_writer()
        self.stop()
        with self._lock:
            self._due, self._remaining, self._times = float("-inf"), max_images, []
            self.session = session = self._new_session()
            self._takes.append((session, []))
            return session

    def stop(self) -> None:
        """End the session, and wait until all its images are on disk."""
        with self._lock:
            self.session = None
        self._wait_for_disk()
        self.check_writer()

    def snapshot(self, frame: Frame) -> None:
        """Save a single image."""
        self.check_writer()
        camera = str(self._camera.metadata)
        session = self._shots.setdefault((self.label, camera), self._new_session())
        self._takes.append((session, []))
        self._put((frame, *self._takes[-1]))

    def undo(self) -> int:
        """Move the files of the last recording or single shot to data/.rejected/, and return how many there were."""
        self.stop()
        if not self._takes:
            return 0
        session, paths = self._takes.pop()
        paths = [path for path in paths if path.exists()]  # others were moved to another label
        for path in paths:
            move_to_rejected(self.data, path)
        if paths:
            append_line(self.data, {"session": session.id, "label": session.label, "undone": len(paths)})
        return len(paths)

    def set_label(self, label: str) -> None:
        """Change the label. An open session is stopped."""
        label = check_label(label, existing_labels(self.data))
        self.stop()
        self.label = label

    def set_place(self, place: str) -> None:
        """Change the place. An open session is stopped."""
        place = check_place(place)
        self.stop()
        self._shots.clear()
        self._metadata = {key: value for key, value in self._metadata.items() if key != "place"}
        if place:
            self._metadata["place"] = place

    def clear_history(self) -> None:
        """Forget all recordings, so that `undo` ignores files that were moved to another folder."""
        self._takes.clear()
        self._shots.clear()

    def close(self) -> None:
        """End the session and the writing thread. A second call does nothing."""
        if not self._ended.is_set():
            self._camera.on_each_frame(None)
            try:
                self.stop()
            finally:
                if not self._ended.is_set():
                    with contextlib.suppress(queue.Full):
                        self._queue.put(None, timeout=ending.PROGRESS_TIMEOUT)
                    # Thread.join may take an interrupted thread for one that has ended (Python 3.11).
                    self._ended.wait(ending.PROGRESS_TIMEOUT)
        ending.release(self.close)
        atexit.unregister(self.close)  # last: another Ctrl-C may interrupt the wait for the disk

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # How images reach the disk

    def add_frame(self, frame: Frame) -> bool:
        """Record an image if a session is open and the next image is due. Returns whether it was recorded."""
        interval, self._last_time = frame.time - self._last_time, frame.time
        with self._lock:
            # Accept an image up to half an interval early. Otherwise jitter skips every second image.
            tolerance = 0.5 * min(interval, self._period)
            if self.session is None or frame.time < self._due - tolerance or self._remaining == 0:
                return False
            # The due times keep a fixed rhythm, unless the camera fell behind it by a whole period.
            late = frame.time - self._due
            self._due = self._period + (frame.time if late > self._period else self._due)
            entry = (frame, *self._takes[-1])
            try:
                if self._camera.live:
                    self._queue.put_nowait(entry)
                else:  # a file waits for the disk
                    self._put(entry)
            except queue.Full:
                self.dropped += 1
                return False
            self._remaining = None if self._remaining is None else self._remaining - 1
            self._times.append(frame.time)
        return True

    def check_writer(self) -> None:
        """Raise the error of the writing thread, if there was one since the last call."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _put(self, entry: tuple) -> None:
        """Queue an image, and wait for room. A signal ends the wait."""
        while True:
            with contextlib.suppress(queue.Full):
                self._queue.put(entry, timeout=0.1)
                return
            ending.check()

    def _wait_for_disk(self) -> None:
        """Wait until the queue is on disk. After a signal, raise DatasetError if the disk takes nothing any more."""
        left, since = self._queue.unfinished_tasks, time.monotonic()
        while left and not self._ended.is_set():
            with self._queue.all_tasks_done:
                if self._queue.unfinished_tasks == left:
                    self._queue.all_tasks_done.wait(0.1)
            before, left = left, self._queue.unfinished_tasks
            if left != before:
                since = time.monotonic()
            elif ending.was_asked() and time.monotonic() - since > ending.PROGRESS_TIMEOUT:
                self._ended.set()  # nobody waits for it again
                raise DatasetError(f"the disk of {self.data} takes nothing any more: {left} images were not saved")

    def _new_session(self) -> Session:
        now = time.strftime(TIME_FORMAT)
        return Session(self.data, self.label, **self._camera.metadata, time=now, **self._metadata)

    def _write(self) -> None:
        """Write queued images until None comes. After an error, only empty the queue, so that nobody waits for room."""
        while True:
            entry = self._queue.get()
            try:
                if entry is None:
                    self._ended.set()
                    return
                frame, session, paths = entry
                if self._error is None:
                    paths.append(session.save(frame.image))
                    ending.hold(self.close)
                    if self._on_saved is not None:
                        self._on_saved(paths[-1])
            except Exception as error:
                self._error = error
            finally:
                self._queue.task_done()
