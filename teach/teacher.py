"""Teach labels by examples: a head that is up to date with the images of a dataset, within a second of each change.

teacher = Teacher(data, backbone)
teacher.refresh()        # images were added, moved or removed
teacher.take()           # the newest model, or None if the last call returned it

The dataset is the only state: its folders say what each image shows. Each image runs through the frozen backbone once,
and its features are stored by its content (data/.teach/features.sqlite). So a moved image costs nothing, and a restart
takes seconds.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import numpy as np
from threadpoolctl import threadpool_limits

from teachcam import ending
from teachcam.calibration import calibrate
from teachcam.cli import first_line
from teachcam.clutter import draw_clutter_images
from teachcam.collect.dataset import Sample, list_samples
from teachcam.collect.quality import SIGNATURE, signature
from teachcam.collect.scenes import find_scenes
from teachcam.collect.split import leave_one_out
from teachcam.errors import DatasetError, UnreadableImage
from teachcam.feature_store import FeatureStore
from teachcam.images import decode_file, read_file
from teachcam.labels import has_background_label
from teachcam.live.prediction import UNKNOWN
from teachcam.live.sinks.base import lower_thread_priority
from teachcam.ridge import DEFAULT_STRENGTH, Rows, fit_ridge
from teachcam.ridge_sums import IncrementalRidge
from teachcam.teach.backbone import Backbone
from teachcam.teach.progress import MIN_EXAMPLES, Progress
from teachcam.teach.taught_model import TaughtModel

FOLDER = ".teach"  # in the dataset
FEATURE_STORE = "features.sqlite"  # in that folder
BATCH = 16  # images between two heads
QUIET = 1.0  # seconds without a change, after which the head is evaluated and calibrated
INTERVAL = 0.3  # seconds at least between two heads while images come one by one: each one slows some live frames
CLOSE_TIMEOUT = 10.0  # seconds: evaluating a large dataset takes some
SWITCH_INTERVAL = 0.0005  # seconds that a thread keeps Python's lock; by default 0.005, as long as a live frame takes

logger = logging.getLogger(__name__)


class Teacher:
    """Learns in a thread of its own, with low priority.

    Attributes:
        data: The dataset's folder.
        progress: What has been learned so far.
        error: What ended the thread, or None.
    """

    def __init__(self, data: Path, backbone: Backbone):
        """Begin with the images of the dataset.

        Args:
            data: The dataset's folder. It may be missing.
            backbone: Backbone of the live loop. The teacher takes a clone of it.
        """
        self.data, self.progress = data, Progress()
        self.error: BaseException | None = None
        self._live_backbone, self._backbone = backbone, backbone.clone_for_background()
        fields = [("features", "f4", (backbone.feature_size,)), ("signature", "u1", (3 * SIGNATURE[0] * SIGNATURE[1],))]
        self._dtype = np.dtype(fields)  # of the record of an image
        self._store = FeatureStore(data / FOLDER / FEATURE_STORE, backbone.identity, self._dtype)
        self._sums = IncrementalRidge(backbone.feature_size)
        self._known: dict[Path, tuple[Sample, np.ndarray]] = {}  # the images in the sums
        self._class_ids: dict[str, int] = {}  # of each label that was ever seen
        self._unreadable: dict[Path, str] = {}
        self._nothing = TaughtModel(backbone, None, replace(backbone.contract, labels=(UNKNOWN,)))
        self._newest = self._taken = self._nothing
        self._is_evaluated = True
        self._lock = threading.Lock()
        self._changed, self._closed, self._up_to_date = threading.Event(), threading.Event(), threading.Event()
        self._ended = threading.Event()
        self._changed.set()
        self._thread = threading.Thread(target=self._run, name="teacher", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # Python, ending, aborts if a thread is inside ONNX Runtime

    def refresh(self) -> None:
        """Look at the dataset again. Any thread may call it."""
        with self._lock:
            self._up_to_date.clear()
            self._changed.set()

    def take(self) -> TaughtModel | None:
        """Return the newest model, or None if it was returned before."""
        with self._lock:
            newest, self._taken = (None if self._newest is self._taken else self._newest), self._newest
        return newest

    @property
    def model(self) -> TaughtModel:
        """The newest model. It has no head before two labels have MIN_EXAMPLES images each."""
        return self._newest

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all is learned and evaluated. Returns whether it is. Raises what ended the thread."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while not (done := self._up_to_date.wait(max(0.0, min(0.2, deadline - time.monotonic())))):
            ending.check()
            if time.monotonic() >= deadline:
                break
        if self.error is not None:
            raise self.error
        return done

    def examples(self) -> list[Sample]:
        """Return the images that the newest head knows."""
        return [sample for sample, _ in list(self._known.values())]

    def close(self) -> None:
        """End the thread. One that is in the middle of a long computation is left behind after CLOSE_TIMEOUT."""
        self._closed.set()
        self._changed.set()
        deadline = time.monotonic() + CLOSE_TIMEOUT
        # Thread.join may take an interrupted thread for one that has ended (Python 3.10 and 3.11).
        while not self._ended.wait(0.05) and time.monotonic() < deadline and not ending.was_asked(ending.CLOSE_TIMEOUT):
            pass
        atexit.unregister(self.close)  # last: another Ctrl-C may interrupt the wait

    # The thread

    def _run(self) -> None:
        lower_thread_priority(10)  # not 19: beside three busy programs it would learn nothing for minutes
        try:
            with _process_settings:
                self._follow()
        except _Closed:
            pass
        except BaseException as error:
            self.error = error
            logger.error("teaching has ended: %s", first_line(error))
        finally:
            self._store.close()
            self._up_to_date.set()
            self._ended.set()

    def _follow(self) -> None:
        """Learn each change of the dataset, until `close`."""
        self._learn_outliers()
        while not self._closed.is_set():
            if self._changed.wait(QUIET):
                self._changed.clear()
                self._learn()
                self._closed.wait(INTERVAL)
            elif not self._is_evaluated:
                self._evaluate()
            else:
                with self._lock:
                    if not self._changed.is_set():
                        self._up_to_date.set()

    def _learn_outliers(self) -> None:
        """Learn clutter images as outliers (Hendrycks 2019), so that unknown objects get low scores."""
        features = np.stack([self._record_of(image)["features"] for image in draw_clutter_images()])
        nobody = np.full(len(features), -1)
        self._outliers = Rows(features, nobody, nobody, nobody, np.ones(len(features), bool))
        self._sums.add(self._outliers)

    def _learn(self) -> None:
        """Bring the sums up to date with the dataset, and make a new head after each few images."""
        try:
            samples = {sample.path: sample for sample in list_samples(self.data)}
            self._progress(problem="")
        except DatasetError as error:  # no folder yet, no image in it, or a folder with an impossible name
            samples = {}
            self._progress(problem=str(error))
        gone = [known for path, known in self._known.items() if samples.get(path) != known[0]]
        new = [sample for path, sample in samples.items() if path not in self._known or self._known[path][0] != sample]
        self._unreadable = {path: reason for path, reason in self._unreadable.items() if path in samples}
        new = [sample for sample in new if sample.path not in self._unreadable]
        if gone:
            self._sums.remove(self._rows(gone))
            for sample, _ in gone:
                del self._known[sample.path]
        for start in range(0, len(new), BATCH):
            read = [(sample, self._read(sample)) for sample in new[start : start + BATCH]]
            added = [(sample, known) for sample, known in read if known is not None]
            if added:
                self._sums.add(self._rows(added))
                self._known.update((sample.path, (sample, known)) for sample, known in added)
            self._publish(len(new) - start - len(read))
        if gone and not new:
            self._publish(0)

    def _read(self, sample: Sample) -> np.ndarray | None:
        """Return the record of a file, or None if it can't be read, or is gone."""
        try:
            content = read_file(sample.path)
            return self._record(hashlib.sha256(content).digest(), lambda: decode_file(content, sample.path))
        except UnreadableImage as error:
            self._unreadable[sample.path] = str(error)
            return None

    def _record_of(self, image: np.ndarray) -> np.ndarray:
        return self._record(hashlib.sha256(image.tobytes()).digest(), lambda: image)

    def _record(self, key: bytes, read: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the features and the signature of an image: stored ones, or new ones, for which the image is read."""
        if self._closed.is_set():  # beside busy programs each image may take this thread a second
            raise _Closed
        known = self._store.get(key)
        if known is None:
            image = read()
            known = np.array((self._backbone.features(image), signature(image)), self._dtype)[()]
            self._store.put({key: known})
        return known

    def _rows(self, examples: list[tuple[Sample, np.ndarray]]) -> Rows:
        """Return a row for each example. All are of one scene."""
        class_ids = [self._class_ids.setdefault(sample.label, len(self._class_ids)) for sample, _ in examples]
        features, count = np.stack([known["features"] for _, known in examples]), len(examples)
        return Rows(features, np.array(class_ids), np.zeros(count, int), np.full(count, -1), np.zeros(count, bool))

    def _publish(self, waiting: int) -> None:
        """Make a head from the sums, with the calibration of the one before."""
        counts = Counter(sample.label for sample, _ in self._known.values())
        self._progress(counts=dict(counts), waiting=waiting, unreadable=tuple(self._unreadable.values()))
        self._is_evaluated = False
        labels = tuple(sorted(label for label, count in counts.items() if count >= MIN_EXAMPLES))
        if len(labels) < 2:
            self._hand_over(self._nothing)
            return
        before = self._newest
        strength = DEFAULT_STRENGTH if before.head is None else before.head.strength
        class_ids = [self._class_ids[label] for label in labels]
        head = self._sums.fit(class_ids, strength, outliers=not has_background_label(labels))
        contract = replace(self._backbone.contract, labels=labels)
        if before.contract.labels == labels:
            temperature, threshold = before.contract.temperature, before.contract.unknown_threshold
            contract = replace(contract, temperature=temperature, unknown_threshold=threshold)
        self._hand_over(TaughtModel(self._live_backbone, head, contract))

    def _evaluate(self) -> None:
        """Measure the accuracy in scenes that were left out, and calibrate."""
        self._is_evaluated = True
        if self._newest.head is None:
            self._progress(accuracy=None, num_evaluated=0, num_scenes=0)
            return
        labels = self._newest.contract.labels
        examples = [example for example in self._known.values() if example[0].label in labels]
        examples.sort(key=lambda example: (example[0].label, example[0].session, example[0].path))
        signatures = np.stack([known["signature"] for _, known in examples]).astype(np.float32)
        samples = [sample for sample, _ in examples]
        samples = find_scenes(samples, signatures).mark(samples)
        splits = leave_one_out(samples)
        fold_of = {sample: number for number, split in enumerate(splits) for sample in split.validation}
        rows = replace(
            self._rows(examples),
            class_ids=np.array([labels.index(sample.label) for sample in samples]),
            fold_ids=np.array([fold_of.get(sample, -1) for sample in samples]),
        )
        evaluated, has_outliers = rows.evaluated, not has_background_label(labels)
        rows = rows + self._outliers if has_outliers else rows
        head = fit_ridge(rows, len(labels), outliers=has_outliers)
        class_ids = rows.class_ids[evaluated]
        contract, probabilities = calibrate(self._newest.contract, head.held_out_logits, class_ids, has_outliers)
        self._hand_over(TaughtModel(self._live_backbone, head, contract))
        self._progress(
            accuracy=float((probabilities.argmax(1) == class_ids).mean()) if len(evaluated) else None,
            num_evaluated=len(evaluated),
            num_scenes=len({sample.scene for sample in samples}),
            labels_of_one_scene=splits[0].labels_split_by_time if splits else labels,
        )

    def _hand_over(self, model: TaughtModel) -> None:
        with self._lock:
            self._newest = model

    def _progress(self, **changes: Any) -> None:
        self.progress = replace(self.progress, **changes)


class _ProcessSettings:
    """Leaves the cores to the live loop while at least one teacher is at work. The last one puts all settings back."""

    def __init__(self):
        """Change nothing yet."""
        self._num_teachers, self._lock, self._restore = 0, threading.Lock(), ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._num_teachers += 1
            if self._num_teachers == 1:
                self._restore.callback(sys.setswitchinterval, sys.getswitchinterval())
                sys.setswitchinterval(SWITCH_INTERVAL)
                # The other threads of linear algebra would have the priority of the live loop.
                self._restore.enter_context(threadpool_limits(1, "blas"))

    def __exit__(self, *_) -> None:
        with self._lock:
            self._num_teachers -= 1
            if self._num_teachers == 0:
                self._restore.close()


_process_settings = _ProcessSettings()


class _Closed(Exception):
    """Ends the thread in the middle of its work."""
