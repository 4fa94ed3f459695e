"""Teach with a camera: record labels, give the newest model to the live loop, and the state to the page.

Everything that is recorded is in the dataset, as with collect/capture.py. Any thread may call a Studio.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from teachcam.collect.camera import Camera, Frame
from teachcam.collect.dataset import check_place, last_place
from teachcam.collect.quality import CameraHints
from teachcam.collect.recorder import Recorder
from teachcam.errors import DatasetError
from teachcam.live.prediction import Model
from teachcam.live.teaching.better_model import BetterModel
from teachcam.live.teaching.label_images import LabelImages
from teachcam.live.teaching.progress import MIN_EXAMPLES
from teachcam.live.teaching.take_along import TakeAlong
from teachcam.live.teaching.teacher import Teacher

FPS = 5.0  # recorded per second
RECORD_TIMEOUT = 3.0  # seconds after which a recording ends by itself
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
        self._hints = CameraHints()
        self._looked_at = self._record_until = 0.0  # time.monotonic()
        self._lock = threading.RLock()
        self._taken: Model | None = None  # by the live loop
        self._state: dict[str, object] = {}
        self._stated_at = float("-inf")

    # Recording

    def record(self, label: str) -> None:
        """Begin to record a label, or go on, until `stop`, or until nobody calls this for some seconds.

        Raises:
            DatasetError: There is no such label, another page is recording another one, or the disk is full.
        """
        with self._lock:
            self._labels.check_exists(label)
            session = self._recorder.session
            if session is not None and session.label != label:
                raise DatasetError(f"another page is recording {session.label}")
            self._record_until = time.monotonic() + RECORD_TIMEOUT
            if session is not None:
                self._recorder.check_writer()
                return
            self._recorder.switch(label)
            self._recorder.start()
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
                self._after_change()
            return session.num_images

    def undo(self) -> int:
        """Take the last recording back. Returns its number of images."""
        with self._lock:
            count = self._recorder.undo()
            self._after_change()
            return count

    def set_place(self, place: str) -> None:
        """Record in another place from now on. Raises DatasetError."""
        place = check_place(place)
        if not place:
            raise DatasetError("a place needs a name, such as kitchen")
        with self._lock:
            self._recorder.set_place(place)
            self.place = place
            self._stated_at = float("-inf")

    # Labels and their images

    def add_label(self, label: str) -> None:
        """Add a label without images. Raises DatasetError."""
        with self._lock:
            self._labels.add(label)
            self._after_change()

    def rename_label(self, label: str, name: str) -> None:
        """Give a label another name. Raises DatasetError."""
        with self._lock:
            self._recorder.stop()
            self._labels.rename(label, name)
            self._recorder.forget()
            self._after_change()

    def remove_label(self, label: str) -> int:
        """Move all images of a label to data/.rejected/. Returns their number. Raises DatasetError."""
        with self._lock:
            self._recorder.stop()
            count = self._labels.remove(label)
            self._recorder.forget()
            self._after_change()
            return count

    def images(self, label: str) -> list[str]:
        """Return the file names of a label's images, the newest first. Raises DatasetError."""
        with self._lock:
            self._labels.check_exists(label)
            return self._labels.files[label][::-1]

    def image_path(self, label: str, name: str) -> Path:
        """Return the path of an image. Raises DatasetError if there is none of that name."""
        with self._lock:
            return self._labels.path(label, name)

    def move_image(self, label: str, name: str, to: str | None) -> None:
        """Move an image to another label, or take it out of the dataset if `to` is None. Raises DatasetError."""
        with self._lock:
            self._labels.move(label, name, to)
            self._after_change()

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
        self._recorder.close()
        self.take_along.close()

    def _make_state(self) -> dict[str, object]:
        progress, recorder, labels = self.teacher.progress, self._recorder, self._labels
        problems = [any(labels.files.values()) and progress.problem, *progress.unreadable]
        return {
            "labels": [
                {
                    "name": label,
                    "count": len(files),
                    "sessions": labels.sessions[label],
                    "learned": progress.counts.get(label, 0),
                    "newest": files[: -1 - NUM_SHOWN : -1],
                }
                for label, files in labels.files.items()
            ],
            "recording": recorder.session.label if recorder.session else None,
            "dropped": recorder.dropped,
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

    def _after_change(self) -> None:
        self._labels.refresh()
        self._use_taught()

    def _use_taught(self) -> None:
        """Learn the change, which a trained model does not know."""
        self._stated_at = float("-inf")
        self.better.model = None
        self.teacher.refresh()
