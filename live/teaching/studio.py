"""What the studio page can do: record labels, look after their images, train a better model, and take a model along.

Everything that is recorded is in the dataset, as with collect/capture.py. Any thread may call a Studio.
"""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from teachcam.cli import first_line
from teachcam.collect.camera import Camera, Frame
from teachcam.collect.dataset import (
    append_line,
    check_label,
    check_place,
    label_folders,
    last_place,
    list_samples,
    move_to_rejected,
    normalize_text,
)
from teachcam.collect.quality import CameraHints
from teachcam.collect.recorder import Recorder
from teachcam.errors import DatasetError, UserError
from teachcam.images import is_image
from teachcam.live.classifier import Classifier
from teachcam.live.prediction import Model
from teachcam.live.teaching.model_file import save_model
from teachcam.live.teaching.teacher import MIN_EXAMPLES, Teacher

if TYPE_CHECKING:
    from teachcam.train.background import BackgroundTraining

FPS = 5.0  # recorded per second
PLACE_REMEMBERED = 3600.0  # seconds
POLL_INTERVAL = 0.5  # seconds between two looks at a training
RECORD_TIMEOUT = 3.0  # seconds after which a recording ends by itself
HINT_INTERVAL = 0.2  # seconds
STATE_LIFETIME = 0.2  # seconds for which a state is not computed again
NUM_SHOWN = 8  # newest images of each label that the page shows

logger = logging.getLogger(__name__)


class Studio:
    """Records with a camera into a dataset that a Teacher learns from.

    Attributes:
        data: The dataset's folder.
        teacher: Learns from it.
        out: Where models are written.
    """

    def __init__(self, camera: Camera, data: Path, teacher: Teacher, out: Path):
        """Begin with what the dataset holds.

        Args:
            camera: An open live camera.
            data: The dataset's folder. It is made if it is missing.
            teacher: Of this dataset.
            out: The folder for models, made when it is needed.
        """
        self.data, self.teacher, self.out = data, teacher, out
        data.mkdir(parents=True, exist_ok=True)
        self.place = last_place(data, PLACE_REMEMBERED) or "place 1"
        self._recorder = Recorder(camera, data, "label", FPS, place=self.place, on_saved=self._on_saved)
        self._hints = CameraHints()
        self._looked_at = self._record_until = 0.0  # time.monotonic()
        self._lock = threading.RLock()
        self._files: dict[str, list[str]] = {}  # of each label, by name
        self._sessions: Counter[str] = Counter()
        self._places: set[str] = set()
        self._trained: Model | None = None  # better than the taught one, and in its place until something changes
        self._taken: Model | None = None  # by the live loop
        self._training: BackgroundTraining | None = None
        self._training_text = ""
        self._why_no_training = why_no_training()
        self._state: dict[str, object] = {}
        self._stated_at = float("-inf")
        self.refresh()

    # Recording

    def record(self, label: str) -> None:
        """Begin to record a label, or go on, until `stop`, or until nobody calls this for some seconds.

        Raises:
            DatasetError: There is no such label, or the disk is full.
        """
        with self._lock:
            self._check_exists(label)
            self._record_until = time.monotonic() + RECORD_TIMEOUT
            if self._recorder.session is not None and self._recorder.label == label:
                self._recorder.check_writer()
                return
            self._recorder.switch(label)
            self._recorder.start()
            self._stated_at = float("-inf")

    def stop(self) -> int:
        """End the recording. Returns how many images it has. Raises DatasetError if the disk is full."""
        with self._lock:
            session = self._recorder.session
            try:
                self._recorder.stop()
            finally:
                self.refresh()
                self._changed()  # its session is new, even if all its files were known
            return session.num_images if session else 0

    def undo(self) -> int:
        """Take the last recording back. Returns how many images that were."""
        with self._lock:
            count = self._recorder.undo()
            self.refresh()
            return count

    def set_place(self, place: str) -> None:
        """Record in another place from now on. Raises DatasetError."""
        place = check_place(place)
        if not place:
            raise DatasetError("a place needs a name, as kitchen")
        with self._lock:
            self._recorder.set_place(place)
            self.place = place
            self._stated_at = float("-inf")

    # Labels and their images

    def add_label(self, label: str) -> None:
        """Add a label without images. Raises DatasetError."""
        label = check_label(label.strip())
        with self._lock:
            if label in self._files:
                raise DatasetError(f"there is a label {label} already")
            _make_folder(self.data / label)
            self.refresh()

    def rename_label(self, label: str, name: str) -> None:
        """Give a label another name. Raises DatasetError."""
        name = check_label(name.strip())
        with self._lock:
            self._check_exists(label)
            if name in self._files:
                raise DatasetError(f"there is a label {name} already: move the images of {label} there")
            self._recorder.stop()
            self._recorder.forget()
            (self.data / label).rename(self.data / name)
            self.refresh()

    def remove_label(self, label: str) -> int:
        """Move all images of a label to data/.rejected/. Returns how many there were."""
        with self._lock:
            self._check_exists(label)
            self._recorder.stop()
            self._recorder.forget()
            for name in self._files[label]:
                move_to_rejected(self.data, self.data / label / name)
            folder = self.data / label
            if not any(folder.iterdir()):
                folder.rmdir()
            count = len(self._files[label])
            self.refresh()
            return count

    def images(self, label: str) -> list[str]:
        """Return the file names of a label's images, the newest first."""
        with self._lock:
            self._check_exists(label)
            return self._files[label][::-1]

    def image_path(self, label: str, name: str) -> Path:
        """Return the path of an image. Raises DatasetError if there is none of that name."""
        with self._lock:
            self._check_exists(label)
            if name not in self._files[label]:
                raise DatasetError(f"{label} has no image {name}")
            return self.data / label / name

    def move_image(self, label: str, name: str, to: str | None) -> None:
        """Move an image to another label, or take it out of the dataset if `to` is None. Raises DatasetError."""
        with self._lock:
            path = self.image_path(label, name)
            if to is None:
                move_to_rejected(self.data, path)
            else:
                self._check_exists(to)
                target = self.data / to / name
                if target.exists():
                    raise DatasetError(f"{to} has an image {name} already")
                path.rename(target)
                append_line(self.data, {"moved": name, "from": label, "to": to})
            self.refresh()

    def refresh(self) -> None:
        """Look at the dataset's folder again."""
        with self._lock:
            folders = {normalize_text(folder.name): folder for folder in label_folders(self.data)}
            files = {
                label: sorted(path.name for path in folder.iterdir() if is_image(path))
                for label, folder in folders.items()
            }
            if files != self._files:
                self._files = files
                self._changed()

    # Models

    def take(self) -> Model | None:
        """Return a newer model for the live loop: of the teacher, or one that was trained and is better."""
        best = self._trained or self.teacher.model
        is_new, self._taken = best is not self._taken, best
        return best if is_new else None

    def save_model(self) -> Path:
        """Write the model that is in use, and return its path. Raises UserError if there is none yet."""
        if isinstance(self._trained, Classifier):
            return self._trained.path
        path = self.out / "model.onnx"
        save_model(path, self.teacher)
        return path

    def train(self) -> None:
        """Start to train a better model in a process of its own. Raises UserError if that can't be done here."""
        with self._lock:
            self._follow(lambda training: training.start(["--data", self.data.resolve()]))

    def resume_training(self) -> None:
        """Continue an interrupted training. Raises UserError if there is none."""
        with self._lock:
            self._follow(lambda training: training.resume())

    def stop_training(self) -> None:
        """Interrupt the training. It can be resumed."""
        if self._training is not None:
            self._training.stop()

    def _follow(self, begin) -> None:
        if self._why_no_training:
            raise UserError(self._why_no_training)
        from teachcam.train.background import BackgroundTraining  # needs PyTorch

        if self._training is not None and self._training.running:
            raise UserError("a training is running")
        self._training = self._training or BackgroundTraining()
        begin(self._training)
        self._training_text = "starting"
        threading.Thread(target=self._watch_training, name="training", daemon=True).start()

    def _watch_training(self) -> None:
        training = self._training
        while training.running:
            time.sleep(POLL_INTERVAL)
        try:
            self._training_text = self._judge_training()
        except Exception as error:  # whatever it is, the page has to say it
            self._training_text = first_line(error)

    def _judge_training(self) -> str:
        """Use the trained model if it is better. Returns a text about it."""
        if self._training.failure:
            return self._training.failure
        accuracy, taught = self._training.metrics["validation"]["accuracy"], self.teacher.progress.accuracy
        run = self._training.run
        if accuracy is not None and taught is not None and accuracy <= taught:
            return f"the trained model is {accuracy:.3f} accurate, and the taught one {taught:.3f}: kept the taught one"
        self._training_text = "exporting"
        command = [sys.executable, "-m", "teachcam", "export", "--checkpoint", str(run / "checkpoint.pt")]
        exported = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if exported.returncode:
            return exported.stdout.strip().split("\n")[-1]
        self._trained = Classifier(run / "model.onnx")
        text = "the trained model is in use"
        return text if accuracy is None else f"{text}: {accuracy:.3f} accurate, the taught one {taught or 0:.3f}"

    # The state of the page

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
        """Return what the page shows, as JSON can hold it."""
        now = time.monotonic()
        if now - self._stated_at > STATE_LIFETIME:
            with self._lock:
                self._state, self._stated_at = self._make_state(), now
        return self._state

    def close(self) -> None:
        """End the recording."""
        self._recorder.close()

    def _make_state(self) -> dict[str, object]:
        progress, recorder = self.teacher.progress, self._recorder
        return {
            "labels": [
                {
                    "name": label,
                    "count": len(files),
                    "sessions": self._sessions[label],
                    "learned": progress.counts.get(label, 0),
                    "newest": files[: -1 - NUM_SHOWN : -1],
                }
                for label, files in self._files.items()
            ],
            "recording": recorder.session.label if recorder.session else None,
            "dropped": recorder.dropped,
            "place": self.place,
            "places": sorted(self._places | {self.place}),
            "waiting": progress.waiting,
            "ready": self.teacher.model.head is not None,
            "min_examples": MIN_EXAMPLES,
            "accuracy": progress.accuracy,
            "judged": progress.num_judged,
            "scenes": progress.num_scenes,
            "one_scene": list(progress.labels_of_one_scene),
            "hints": self._hints.newest,
            "problem": next(filter(None, [any(self._files.values()) and progress.problem, *progress.unreadable]), ""),
            "model": "taught" if self._trained is None else "trained",
            "training": self._training_state(),
        }

    def _training_state(self) -> dict[str, object]:
        training = self._training
        state: dict[str, object] = {
            "impossible": self._why_no_training,
            "running": training is not None and training.running,
            "text": self._training_text,
            "can_resume": training is not None and training.can_resume,
            "curve": [],
        }
        if training is not None and training.running and training.epochs:
            newest = training.epochs[-1]
            state["text"] = f"{newest['training']}: {newest['epoch']} of {newest['epochs']}"
            state["curve"] = [row["validation_accuracy"] for row in training.epochs]
        return state

    def _on_saved(self, path: Path) -> None:
        """Take note of a new file. The recorder's thread calls this."""
        self._files.setdefault(path.parent.name, []).append(path.name)
        self._trained = None
        self.teacher.refresh()

    def _changed(self) -> None:
        self._stated_at = float("-inf")
        self._trained = None
        self._count_sessions()
        self.teacher.refresh()

    def _count_sessions(self) -> None:
        try:
            samples = list_samples(self.data)
        except DatasetError:
            samples = []
        self._sessions = Counter(label for label, _ in {(sample.label, sample.session) for sample in samples})
        self._places = {sample.scene for sample in samples if sample.scene != sample.session}

    def _check_exists(self, label: str) -> None:
        if label not in self._files:
            raise DatasetError(f"there is no label {label[:100]}")


def why_no_training() -> str:
    """Return why `train/finetune.py` can't run on this device, or "" if it can."""
    if sys.version_info < (3, 10):
        return "training needs Python 3.10 or newer: copy the folder data to another machine, and train there"
    missing = [name for name in ("torch", "torchvision", "timm") if importlib.util.find_spec(name) is None]
    if missing:
        return (
            f"training needs {', '.join(missing)}: pip install 'teachcam[train]', or copy the folder data to another "
            "machine, and train there"
        )
    return ""


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"can't make {path}: {error.strerror}") from None
