"""The studio: record labels, give the newest model to the live loop, and the state to the page.

Everything that is recorded is in the dataset, as with collect/capture.py. Any thread may call its parts.
"""

from __future__ import annotations

from pathlib import Path

from teachcam.collect.camera import Camera, Frame
from teachcam.live.prediction import Model
from teachcam.teach.background_trainer import BackgroundTrainer
from teachcam.teach.camera_choice import CameraChoice
from teachcam.teach.label_images import LabelImages
from teachcam.teach.progress import MIN_EXAMPLES
from teachcam.teach.recording import Recording
from teachcam.teach.take_along import TakeAlong
from teachcam.teach.teacher import Teacher

NUM_SHOWN = 8  # newest images of each label that the page shows


class Studio:
    """Records with a camera into a dataset that a Teacher learns from.

    Attributes:
        teacher: Learns from the dataset.
        labels: The labels and their images; undo and redo.
        recording: Records while a page holds a button.
        camera: Chooses the camera, and mirrors it.
        trainer: Trains a better model in the background.
        take_along: Writes the model in use as a file.
    """

    def __init__(self, camera: Camera, data: Path, teacher: Teacher, out: Path):
        """Begin with the images of the dataset.

        Args:
            camera: An open live camera.
            data: The dataset's folder. It is made if it is missing.
            teacher: Teacher of this dataset.
            out: The folder for the taught model, made when it is needed.
        """
        self.teacher, self.trainer = teacher, BackgroundTrainer(data, teacher)
        self.take_along = TakeAlong(teacher, self.trainer, out)
        self.labels = LabelImages(data, self._use_taught)
        self.recording = Recording(camera, self.labels)
        self.camera = CameraChoice(camera, self.recording)
        self._taken: Model | None = None  # by the live loop

    def take(self) -> Model | None:
        """Return the best model, if the live loop has not taken it yet."""
        best = self.trainer.model or self.teacher.model
        is_new, self._taken = best is not self._taken, best
        return best if is_new else None

    def look(self, frame: Frame) -> None:
        """Take a frame for hints about the camera, now and then. Ends a recording whose page is gone."""
        self.camera.look(frame.image)
        self.recording.end_if_abandoned()

    def state(self) -> dict[str, object]:
        """Return the state for the page, as JSON can hold it."""
        with self.labels.lock:
            return self._state()

    def close(self) -> None:
        """End the recording, and an export."""
        self.recording.close()
        self.take_along.close()

    def _state(self) -> dict[str, object]:
        progress, recording, labels = self.teacher.progress, self.recording, self.labels
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
            "recording": recording.label,
            "recording_page": recording.page,
            "dropped": recording.dropped,
            "undo": labels.history.undo_text,
            "redo": labels.history.redo_text,
            "rejected": labels.num_rejected,
            "camera_source": self.camera.source,
            "mirrored": self.camera.mirrored,
            "place": recording.place,
            "places": sorted(labels.places | {recording.place}),
            "ready": self.teacher.model.head is not None,
            "min_examples": MIN_EXAMPLES,
            "accuracy": progress.describe(),
            "hints": self.camera.hints,
            "problem": next(filter(None, problems), ""),
            "export": self.take_along.state(),
            "export_choices": self.take_along.choices(),
            "model": "taught" if self.trainer.model is None else "trained",
            "training": self.trainer.state(),
        }

    def _use_taught(self) -> None:
        """Learn a change of the images, which a trained model does not know."""
        self.trainer.model = None
        self.teacher.refresh()
