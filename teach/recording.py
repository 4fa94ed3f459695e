"""Record a label as long as a page holds its button."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import Iterator

from teachcam.collect.camera import Camera
from teachcam.collect.dataset import check_place, last_place
from teachcam.collect.recorder import Recorder
from teachcam.errors import DatasetError
from teachcam.teach.label_images import LabelImages

FPS = 5.0  # recorded per second
TIMEOUT = 10.0  # seconds after which a recording ends that nobody asks for any more


class Recording:
    """Records one label at a time, for one page. Any thread may call it.

    Attributes:
        place: The place of the next recording.
        page: The page that records, or did so last.
    """

    def __init__(self, camera: Camera, labels: LabelImages):
        """Begin without a recording.

        Args:
            camera: An open live camera.
            labels: Labels of the dataset to record into.
        """
        self.place, self.page = last_place(labels.data) or "place 1", ""
        self._labels, self._lock = labels, labels.lock
        self._recorder = Recorder(camera, labels.data, "label", FPS, place=self.place, on_saved=labels.note)
        self._until = 0.0  # time.monotonic()
        self._connections: Counter[str] = Counter()  # of each page
        self._is_paused = False

    @property
    def label(self) -> str | None:
        """The label that is being recorded."""
        session = self._recorder.session
        return session.label if session else None

    @property
    def dropped(self) -> int:
        """The images that were lost because the disk is too slow."""
        return self._recorder.dropped

    def begin(self, label: str, page: str = "") -> None:
        """Begin to record a label, or go on, until `end`, or until nobody calls this for some seconds.

        Args:
            label: An existing label.
            page: Page that records, if `page_opened` has named it. Others can't record meanwhile.

        Raises:
            DatasetError: There is no such label, another page is recording, the page is closed, or the disk is full.
        """
        with self._lock:
            if page and not self._connections[page]:  # it came after the page was closed
                raise DatasetError("this page has no connection: load it again")
            self._labels.check_exists(label)
            if self._is_paused:
                raise DatasetError("the camera is being changed: wait a moment")
            if self.label is not None and (self.label, self.page) != (label, page):
                raise DatasetError(f"another page is recording {self.label}")
            self._until, self.page = time.monotonic() + TIMEOUT, page
            if self.label is not None:
                self._recorder.check_writer()
                return
            self._recorder.set_label(label)
            session = self._recorder.start()
            try:
                self._labels.begin_recording(session.id, label)
            except DatasetError:  # a full disk
                self._end()
                raise

    def end(self, label: str | None = None) -> int:
        """End the recording.

        Args:
            label: Only a recording of this label is ended. By default of any: only one can be open.

        Returns:
            Its number of images, 0 if there is none.

        Raises:
            DatasetError: The disk is full.
        """
        with self._lock:
            session = self._recorder.session
            if session is None or label not in (None, self.label):
                return 0
            self._end()
            return session.num_images

    def end_if_abandoned(self) -> None:
        """End a recording that nobody has asked for lately, in another thread. The live loop calls this."""
        if self._recorder.recording and time.monotonic() > self._until:
            self._until = float("inf")
            threading.Thread(target=self.end, name="end recording", daemon=True).start()

    def page_opened(self, page: str) -> None:
        """Take note of a page that has a connection. From then on it can record."""
        with self._lock:
            self._connections[page] += 1
            with suppress(OSError):  # the folder is gone, or can't be read: recording says so
                self._labels.refresh()  # another program may have recorded meanwhile

    def page_closed(self, page: str) -> None:
        """Take note that a connection has ended, and end the recording of its page."""
        with self._lock:
            self._connections[page] -= 1
            if self._connections[page] <= 0:
                del self._connections[page]
            if self.page == page:
                self.end()

    def set_place(self, place: str) -> None:
        """Record in another place from now on. Raises DatasetError."""
        place = check_place(place)
        if not place:
            raise DatasetError("a place needs a name, such as kitchen")
        with self._lock:
            self._labels.check_nothing_is_recorded()
            self._recorder.set_place(place)
            self.place = place

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Refuse recordings meanwhile. Raises DatasetError if one is going on."""
        with self._lock:
            self._labels.check_nothing_is_recorded()
            self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def close(self) -> None:
        """End the recording for good."""
        try:
            self._recorder.close()
        finally:
            self._labels.end_recording()

    def _end(self) -> None:
        try:
            self._recorder.stop()
        finally:
            self._recorder.clear_history()  # what it would undo by itself
            self._labels.end_recording()
