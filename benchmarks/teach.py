"""Measure teaching: how fast a new head is there, what it costs the live loop, and how right it is with few examples.

    python benchmarks/teach.py speed
    python benchmarks/teach.py clip CLIP.mp4 TRUTH.txt [--examples 10]
    python benchmarks/teach.py examples DATA [--counts 5 10 20 50] [--tutorial]

speed      on the synthetic camera, 10 labels with 50 images each:
               first answer   from the release of a record button to the first answer of the head that knows it
               new head       the head alone, with 10,000 examples, in ms
               loop p99       of the live loop's latency while recording and making new heads, over that without
clip       the first EXAMPLES images of each label of a clip are taught, and the rest is classified. TRUTH has a line
           for each frame: its label
examples   in a dataset whose sessions are rooms: accuracy in a third of the rooms, three times, with COUNT images of
           each label from each other room; beside the recipe of NVIDIA's thumbs tutorial on the same images
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from teachcam.collect.camera import Camera
from teachcam.collect.dataset import Session, list_samples
from teachcam.images import read_image
from teachcam.live.loop import loop
from teachcam.processor import processor_name
from teachcam.ridge import Rows
from teachcam.ridge_sums import IncrementalRidge
from teachcam.teach.backbone import Backbone
from teachcam.teach.session import Studio
from teachcam.teach.teacher import Teacher

NUM_LABELS, NUM_IMAGES = 10, 50  # of `speed`
NUM_FOLDS = 3


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speed", "clip", "examples"))
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--examples", type=int, default=10)
    parser.add_argument("--counts", type=int, nargs="+", default=[5, 10, 20, 50])
    parser.add_argument("--tutorial", action="store_true", help="also train by the tutorial's recipe")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "speed":
            measure_speed(Path(folder))
        elif options.what == "clip":
            measure_clip(Path(folder), *options.paths, options.examples)
        else:
            measure_examples(Path(folder), *options.paths, options.counts, options.tutorial)
    print(f"on {processor_name()}")


def measure_speed(folder: Path) -> None:
    """Print the times of a studio with 10 labels of 50 images."""
    data = folder / "data"
    labels = [f"label{number}" for number in range(NUM_LABELS)]
    rng = np.random.default_rng(0)
    for label in labels:
        session = Session(data, label)
        for _ in range(NUM_IMAGES):
            session.save(cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), (640, 480)))
    teacher = Teacher(data, Backbone(folder / "backbone", "cpu"))
    teacher.wait()
    with Camera("synthetic?seed=1") as camera:
        studio = Studio(camera, data, teacher, folder / "runs")
        watch = _Watch(studio, labels)
        loop(camera, teacher.model, [watch], watcher=studio)
        studio.close()
    teacher.close()
    waits = np.array(watch.waits)
    print(
        f"first answer: p50 {np.median(waits):.2f} s, p95 {np.quantile(waits, 0.95):.2f} s of {len(waits)} recordings"
    )
    calm, busy = (np.quantile(times, 0.99) for times in (watch.calm, watch.busy))
    print(f"loop p99: {1000 * busy:.1f} ms while teaching, {1000 * calm:.1f} ms calm: {busy / calm:.2f} times")
    sums = IncrementalRidge(Backbone.feature_size)
    for start in range(0, 10_000, 1000):
        features = rng.normal(size=(1000, Backbone.feature_size)).astype(np.float32)
        class_ids, zeros = (start + np.arange(1000)) % NUM_LABELS, np.zeros(1000, int)
        sums.add(Rows(features, class_ids, zeros, zeros - 1, zeros > 0))
    times = []
    for _ in range(9):
        started = time.perf_counter()
        sums.fit(range(NUM_LABELS))
        times.append(time.perf_counter() - started)
    print(
        f"new head: {1000 * np.median(times):.0f} ms with 10,000 examples of {NUM_LABELS} labels, "
        f"median of {len(times)}"
    )


class _Watch:
    """A sink that plays a user: records a second of each label in turn, with calm pauses, and notes the times."""

    def __init__(self, studio: Studio, labels: list[str]):
        self.waits: list[float] = []  # seconds from the end of a recording to the first answer of a new head
        self.calm: list[float] = []  # seconds of latency, of frames in the pauses
        self.busy: list[float] = []  # the same while recording and learning
        self._studio, self._labels = studio, list(labels) * 2
        self._phase, self._until, self._released = "calm", time.monotonic() + 5, 0.0

    def __call__(self, result) -> bool:
        now, studio = time.monotonic(), self._studio
        if self._phase == "calm":
            self.calm.append(result.latency)
            if now > self._until:
                if not self._labels:
                    return False
                studio.recording.begin(self._labels.pop())
                self._phase, self._until = "recording", now + 1
        elif self._phase == "recording":
            self.busy.append(result.latency)
            if now > self._until:
                self._phase, self._released = "learning", now
                self._stopping = threading.Thread(target=studio.recording.end)
                self._stopping.start()
        else:
            self.busy.append(result.latency)
            learned = sum(studio.teacher.progress.counts.values())
            known = sum(len(files) for files in studio.labels.files.values())
            is_new = not self._stopping.is_alive() and learned == known and result.classifier is studio.teacher.model
            if self._phase == "learning" and is_new:
                self.waits.append(now - self._released)
                self._phase = "judging"
            if self._phase == "judging" and studio.teacher._up_to_date.is_set():
                self._phase, self._until = "calm", now + 3
        return True

    def close(self) -> None:
        pass


def measure_clip(folder: Path, clip: Path, truth: Path, examples: int) -> None:
    """Print the accuracy on a clip after the first images of each label were taught."""
    labels = truth.read_text().split()
    frames = {frame.number: frame.image for frame in Camera(str(clip))}
    taken = defaultdict(list)
    for number, label in enumerate(labels):
        if number in frames and len(taken[label]) < examples:
            taken[label].append(number)
    sessions = {label: Session(folder / "data", label) for label in taken}
    for label, numbers in taken.items():
        for number in numbers:
            sessions[label].save(frames[number])
    teacher = Teacher(folder / "data", Backbone(folder / "backbone", "cpu"))
    teacher.wait()
    taught = {number for numbers in taken.values() for number in numbers}
    rest = [number for number in frames if number not in taught and number < len(labels)]
    answers = [teacher.model.classify(frames[number]) for number in rest]
    best = [max(answer.probabilities, key=answer.probabilities.get) for answer in answers]
    correct = np.mean([answer == labels[number] for answer, number in zip(best, rest, strict=True)])
    known = np.mean([answer.label == labels[number] for answer, number in zip(answers, rest, strict=True)])
    print(f"{examples} images of each of {len(taken)} labels: {correct:.3f} of {len(rest)} other frames are right")
    print(f"with unknown counted as wrong: {known:.3f}")
    teacher.close()


def measure_examples(folder: Path, data: Path, counts: list[int], tutorial: bool) -> None:
    """Print the accuracy in other rooms for each number of examples of each label in each room."""
    samples = list_samples(data)
    rooms = sorted({sample.session for sample in samples})
    backbone = Backbone(folder / "backbone", "cpu")
    for count in counts:
        taught, recipe = [], []
        for fold in range(NUM_FOLDS):
            test = [sample for sample in samples if rooms.index(sample.session) % NUM_FOLDS == fold]
            by_group = defaultdict(list)
            for sample in samples:
                if rooms.index(sample.session) % NUM_FOLDS != fold:
                    by_group[sample.label, sample.session].append(sample)
            chosen = []
            for group in by_group.values():  # at equal distances
                kept = np.unique(np.linspace(0, len(group) - 1, count).round().astype(int))
                chosen += [group[index] for index in kept]
            own = folder / f"{count}-{fold}"
            for sample in chosen:
                (own / sample.label).mkdir(parents=True, exist_ok=True)
                (own / sample.label / sample.path.name).symlink_to(sample.path.resolve())
            teacher = Teacher(own, backbone)
            teacher.wait()
            images, true = [read_image(sample.path) for sample in test], [sample.label for sample in test]
            answers = [teacher.model.classify(image).probabilities for image in images]
            taught.append(np.mean([max(a, key=a.get) == label for a, label in zip(answers, true, strict=True)]))
            teacher.close()
            if tutorial:
                recipe.append(_accuracy_of_the_tutorial(own, images, true))
        line = f"{count:>3} images: taught {np.mean(taught):.3f} ({' '.join(f'{value:.3f}' for value in taught)})"
        print(line + (f"   tutorial {np.mean(recipe):.3f}" if recipe else ""), flush=True)


def _accuracy_of_the_tutorial(data: Path, images: list[np.ndarray], labels: list[str]) -> float:
    """Train SqueezeNet by the tutorial's recipe, and return its accuracy."""
    import new_rooms  # beside this file; it needs PyTorch
    import torch

    from teachcam.contract import Contract
    from teachcam.preprocessing import preprocess
    from teachcam.train.data.dataset import Dataset
    from teachcam.train.model.backbones import build_network
    from teachcam.train.model.inference import InferenceModel, predict

    dataset = Dataset(data)
    contract = Contract(dataset.labels, (224, 224))
    torch.manual_seed(0)
    network, _ = build_network("squeezenet1_1", len(dataset.labels), "imagenet")
    examples = dataset.examples(dataset.samples)
    inputs = np.stack([preprocess(image, contract) for image in examples.images])
    new_rooms.train_as_the_tutorial(network, inputs, examples.class_ids, torch.device("cpu"))
    probabilities = predict(InferenceModel(network, contract), images, contract)
    answers = [dataset.labels[index] for index in probabilities.argmax(1)]
    return float(np.mean([answer == label for answer, label in zip(answers, labels, strict=True)]))


if __name__ == "__main__":
    main()
