"""Teach with a camera: record labels, give the newest model to the live loop, and the state to the page.

Everything that is recorded is in the dataset, as with collect/capture.py. Any thread may call a Studio.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Iterator

from teachcam.collect.camera import Camera, Frame
from teachcam.collect.dataset import check_place, last_place
from teachcam.collect.quality import CameraHints
from teachcam.collect.recorder import Recorder
from teachcam.errors import DatasetError, UserError
from teachcam.live.prediction import Model
from teachcam.teach.background_trainer import BetterModel
from teachcam.teach.camera_choice import CameraChoice
from teachcam.teach.label_images import LabelImages
from teachcam.teach.progress import MIN_EXAMPLES
from teachcam.teach.take_along import TakeAlong
from teachcam.teach.teacher import Teacher

FPS = 5.0  # recorded per second
RECORD_TIMEOUT = 10.0  # seconds after which a recording ends that nobody asks for any more
HINT_INTERVAL = 0.2  # seconds
STATE_LIFETIME = 0.2  # seconds for which a state is not computed again
NUM_SHOWN = 8  # newest images of each label that the page shows


class Studio:
    """Records with a camera into a dataset that a Teacher learns from.

    Attributes:
        teacher: Learns from the dataset.
        better: Trains a better model on it.
        take_along: Writes the model in use as a file.
        place: The place of the next recording.
    """

    def __init__(self, camera: Camera, data: Path, teacher: Teacher, out: Path):
        """Begin with the images of the dataset.

        Args:
            camera: An open live camera.
            data: The dataset's folder. It is made if it is missing.
            teacher: Of this dataset.
            out: The folder for the taught model, made when it is needed.
        """
        self.teacher, self.better = teacher, BetterModel(data, teacher)
        self.place = last_place(data) or "place 1"
        self.take_along = TakeAlong(teacher, self.better, out)
        self._labels = LabelImages(data)
        self._recorder = Recorder(camera, data, "label", FPS, place=self.place, on_saved=self._on_saved)
        self._camera_choice = CameraChoice(camera)
        self._camera_lock = threading.Lock()  # `_lock` would stop the page for the seconds that a camera takes to open
        self._changing_camera = False
        self._hints = CameraHints()
        self._looked_at = self._record_until = 0.0  # time.monotonic()
        self._page = ""  # the one that records
        self._pages: Counter[str] = Counter()  # connections of each
        self._lock = threading.RLock()
        self._taken: Model | None = None  # by the live loop
        self._state: dict[str, object] = {}
        self._stated_at = float("-inf")

    # Recording

    def record(self, label: str, page: str = "") -> None:
        """Begin to record a label, or go on, until `stop`, or until nobody calls this for some seconds.

        Args:
            label: It must exist.
            page: The page that records, if `page_opened` has named it. Others can't record meanwhile.

        Raises:
            DatasetError: There is no such label, another page is recording, the page is closed, or the disk is full.
        """
        with self._lock:
            if page and not self._pages[page]:  # it came after the page was closed
                raise DatasetError("this page has no connection: load it again")
            self._labels.check_exists(label)
            if self._changing_camera:
                raise DatasetError("the camera is being changed: wait a moment")
            session = self._recorder.session
            if session is not None and (session.label, self._page) != (label, page):
                raise DatasetError(f"another page is recording {session.label}")
            self._record_until, self._page = time.monotonic() + RECORD_TIMEOUT, page
            if session is not None:
                self._recorder.check_writer()
                return
            self._recorder.switch(label)
            self._recorder.start()
            try:
                self._labels.history.begin_recording(self._recorder.session.id, label)
            except DatasetError:  # a full disk
                self._recorder.stop()
                self._end_recording()
                raise
            self._stated_at = float("-inf")

    def stop(self, label: str | None = None) -> int:
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
            if session is None or label not in (None, session.label):
                return 0
            try:
                self._recorder.stop()
            finally:
                self._end_recording()
            return session.num_images

    def page_opened(self, page: str) -> None:
        """Take note of a page that has a connection. From then on it can record."""
        with self._lock:
            self._pages[page] += 1
            with contextlib.suppress(OSError):  # the folder is gone, or can't be read: recording says so
                self.refresh()

    def page_closed(self, page: str) -> None:
        """Take note that a connection has ended, and end the recording of its page."""
        with self._lock:
            self._pages[page] -= 1
            if self._pages[page] <= 0:
                del self._pages[page]
            if self._recorder.session is not None and self._page == page:
                self.stop()

    def undo(self) -> str:
        """Take the last change back, whatever it was. Returns a sentence about it. Raises DatasetError."""
        with self._lock:
            self._check_nothing_is_recorded()
            text = self._labels.history.undo()
            self._after_change()
            return text or "nothing to undo"

    def redo(self) -> str:
        """Do again what was undone last. Returns a sentence about it. Raises DatasetError."""
        with self._lock:
            self._check_nothing_is_recorded()
            text = self._labels.history.redo()
            self._after_change()
            return text or "nothing to redo"

    def set_place(self, place: str) -> None:
        """Record in another place from now on. Raises DatasetError."""
        place = check_place(place)
        if not place:
            raise DatasetError("a place needs a name, such as kitchen")
        with self._lock:
            self._check_nothing_is_recorded()
            self._recorder.set_place(place)
            self.place = place
            self._stated_at = float("-inf")

    # The camera

    def cameras(self) -> list[dict[str, str]]:
        """Return the cameras that `set_camera` takes, see `CameraChoice.find`. It takes seconds."""
        with self._camera_lock:
            return self._camera_choice.find()

    def set_camera(self, source: str) -> None:
        """Record and classify with another camera. If it does not open, the one before stays in use.

        Args:
            source: A source that `cameras` has listed.

        Raises:
            UserError: It does not open, or is not listed, or a recording is going on.
        """
        with self._change_camera():
            self._camera_choice.choose(source)

    def mirror(self, on: str) -> None:
        """Mirror the camera's images, or stop that.

        From then on they are recorded mirrored, as with `--flip horizontal`, and the live loop sees the same. So what
        is learned fits what is seen. Images that are recorded already stay as they are.

        Args:
            on: "yes" or "no".

        Raises:
            UserError: It is neither, or a recording is going on, or the camera does not open in this way.
        """
        if on not in ("yes", "no"):
            raise UserError('the camera can be mirrored with "yes" or "no"')
        with self._change_camera():
            self._camera_choice.mirror(on == "yes")

    @contextlib.contextmanager
    def _change_camera(self) -> Iterator[None]:
        """Refuse recordings meanwhile. Raises DatasetError if one is going on."""
        with self._camera_lock:
            with self._lock:
                if self._recorder.recording:
                    raise DatasetError("let go of the button first: a recording is going on")
                self._changing_camera = True
            try:
                yield
                self._hints = CameraHints()  # the old ones compare with the images before
            finally:
                self._changing_camera, self._stated_at = False, float("-inf")

    # Labels and their images

    def add_label(self, label: str) -> None:
        """Add a label without images. Raises DatasetError."""
        with self._lock:
            self._labels.add(label)
            self._after_change()

    def rename_label(self, label: str, name: str) -> None:
        """Give a label another name. Raises DatasetError."""
        with self._lock:
            self._check_not_recorded(label)
            self._labels.rename(label, name)
            self._after_change()

    def remove_label(self, label: str) -> int:
        """Move all images of a label to data/.rejected/. Returns their number. Raises DatasetError."""
        with self._lock:
            self._check_not_recorded(label)
            count = self._labels.remove(label)
            self._after_change()
            return count

    def order_label(self, label: str, before: str | None) -> None:
        """Put a label in front of another one, or to the end if `before` is None. Raises DatasetError."""
        with self._lock:
            self._labels.order(label, before)
            self._labels.refresh()
            self._stated_at = float("-inf")

    def images(self, label: str) -> list[str]:
        """Return the file names of a label's images, the newest first. Raises DatasetError."""
        with self._lock:
            return self._labels.images(label)

    def image_path(self, label: str, name: str) -> Path:
        """Return the path of an image. Raises DatasetError if there is none of that name."""
        with self._lock:
            return self._labels.path(label, name)

    def move_images(self, label: str, names: list[str], to: str | None) -> str:
        """Move images to another label, or take them out of the dataset if `to` is None.

        Returns:
            A sentence about it, as in "moved 2 images to b".

        Raises:
            DatasetError: There are no such labels, or none of the images is there.
        """
        with self._lock:
            text = self._labels.move(label, names, to)
            self._after_change()
            return text

    def rejected(self) -> list[dict[str, str]]:
        """Return the label and the file name of images that were taken out, the last one first."""
        with self._lock:
            return self._labels.rejected()

    def rejected_path(self, label: str, name: str) -> Path:
        """Return the path of an image that was taken out. Raises DatasetError if there is none of that name."""
        return self._labels.rejected_path(label, name)

    def restore_images(self, label: str, names: list[str]) -> str:
        """Move images that were taken out back to their label.

        Returns:
            A sentence about it, as in "restored 2 images to a".

        Raises:
            DatasetError: None of the images is there, or their label is gone and can't be made.
        """
        with self._lock:
            text = self._labels.restore(label, names)
            self._after_change()
            return text

    def refresh(self) -> None:
        """Look at the dataset's folder again: another program may have changed it."""
        with self._lock:
            if self._labels.refresh():
                self._use_taught()

    # Models

    def take(self) -> Model | None:
        """Return the best model, if the live loop has not taken it yet."""
        best = self.better.model or self.teacher.model
        is_new, self._taken = best is not self._taken, best
        return best if is_new else None

    # The page

    def look(self, frame: Frame) -> None:
        """Take a frame for hints about the camera, now and then. Ends a recording whose page is gone."""
        now = time.monotonic()
        if now - self._looked_at > HINT_INTERVAL:
            self._looked_at = now
            self._hints(frame.image)
            self._camera_choice.note_size(frame.image.shape[1], frame.image.shape[0])
        if self._recorder.recording and now > self._record_until:
            self._record_until = float("inf")
            threading.Thread(target=self.stop, name="stop recording", daemon=True).start()

    def state(self) -> dict[str, object]:
        """Return the state for the page, as JSON can hold it."""
        now = time.monotonic()
        if now - self._stated_at > STATE_LIFETIME:
            with self._lock:
                self._state, self._stated_at = self._make_state(), now
        return self._state

    def close(self) -> None:
        """End the recording, and an export."""
        try:
            self._recorder.close()
        finally:
            with self._lock:
                self._labels.history.end_recording()
        self.take_along.close()

    def _make_state(self) -> dict[str, object]:
        progress, recorder, labels = self.teacher.progress, self._recorder, self._labels
        problems = [any(labels.files.values()) and progress.problem, *progress.unreadable]
        return {
            "labels": [
                {
                    "name": label,
                    "color": labels.colors.get(label, 0),
                    "count": len(files),
                    "sessions": labels.sessions[label],
                    "learned": progress.counts.get(label, 0),
                    "newest": files[: -1 - NUM_SHOWN : -1],
                }
                for label, files in labels.files.items()
            ],
            "recording": recorder.session.label if recorder.session else None,
            "recording_page": self._page,
            "dropped": recorder.dropped,
            "undo": labels.history.undo_text,
            "redo": labels.history.redo_text,
            "rejected": labels.num_rejected,
            "camera_source": self._camera_choice.source,
            "mirrored": self._camera_choice.mirrored,
            "place": self.place,
            "places": sorted(labels.places | {self.place}),
            "ready": self.teacher.model.head is not None,
            "min_examples": MIN_EXAMPLES,
            "accuracy": progress.describe(),
            "hints": self._hints.newest,
            "problem": next(filter(None, problems), ""),
            "export": self.take_along.state(),
            "export_choices": self.take_along.choices(),
            "model": "taught" if self.better.model is None else "trained",
            "training": self.better.state(),
        }

    def _on_saved(self, path: Path) -> None:
        """Take note of a new file. The recorder's thread calls this."""
        self._labels.note(path)
        self._use_taught()

    def _check_nothing_is_recorded(self) -> None:
        if self._recorder.session is not None:
            raise DatasetError("let go of the button first: a recording is going on")

    def _check_not_recorded(self, label: str) -> None:
        session = self._recorder.session
        if session is not None and session.label == label:
            raise DatasetError(f"{label} is being recorded: wait until that ends")

    def _end_recording(self) -> None:
        """Make the recording that was stopped the last change."""
        self._recorder.forget()  # what it would undo by itself
        try:
            self._labels.history.end_recording()
        finally:
            self._after_change()

    def _after_change(self) -> None:
        self._labels.refresh()
        self._use_taught()

    def _use_taught(self) -> None:
        """Learn the change, which a trained model does not know."""
        self._stated_at = float("-inf")
        self.better.model = None
        self.teacher.refresh()
