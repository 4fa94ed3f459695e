"""Measure how much smoothing reduces flicker, and how much it delays a change of label.

    python benchmarks/steady.py MODEL CLIP TRUTH

TRUTH is a text file with the true labels of the video CLIP. Under a line of titles, each line is `first_frame
last_frame label`, with tabs between. Flicker is the number of label changes beyond the true ones. Delay is the number
of frames from a true change to the first correct prediction.

The clip is also measured with one frame in five spoiled: motion-blurred, or dark and noisy. A clean clip may show no
difference between the settings.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np

from teachcam.collect.camera import Camera
from teachcam.live.classifier import Classifier
from teachcam.live.prediction import Smoother
from teachcam.processor import processor_name

# Pairs of --smoothing and --min-hold in seconds.
SETTINGS = ((0, 0), (0.05, 0), (0.1, 0), (0.15, 0), (0.2, 0), (0.3, 0), (0, 0.1), (0.1, 0.1))


def main() -> None:
    """Print one row for each setting, for the clean and for the spoiled clip."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="an ONNX file of export/to_onnx.py")
    parser.add_argument("clip", type=Path, help="a video")
    parser.add_argument("truth", type=Path, help="the true labels of the video's frames")
    options = parser.parse_args()
    classifier = Classifier(options.model)
    truth = read_truth(options.truth)
    changes = [index for index in range(1, len(truth)) if truth[index] != truth[index - 1]]
    for fraction in (0.0, 0.2):
        rng = np.random.default_rng(0)
        with Camera(options.clip) as camera:
            images = [(frame.time, spoil(frame.image, rng, fraction)) for frame in camera]
        predictions = [(time, classifier.classify(image)) for time, image in images]
        print(f"{100 * fraction:.0f} % of {len(images)} frames spoiled, {len(changes)} true changes")
        print(
            f"{'smoothing':>10}{'min hold':>10}{'extra changes':>15}{'delays in frames':>22}{'accuracy':>10}  processor"
        )
        for smoothing, min_hold in SETTINGS:
            smoother = Smoother(classifier.contract.unknown_threshold, smoothing, min_hold)
            labels = [smoother(prediction, time).label for time, prediction in predictions]
            extra = sum(before != after for before, after in itertools.pairwise(labels)) - len(changes)
            ends = [*changes[1:], len(truth)]
            delays = [delay(labels[start:end], truth[start]) for start, end in zip(changes, ends, strict=True)]
            accuracy = np.mean([label == true for label, true in zip(labels, truth, strict=True)])
            print(
                f"{smoothing:>9}s{min_hold:>9}s{extra:>15}{' '.join(map(str, delays)):>22}{accuracy:>10.3f}"
                f"  {processor_name()}"
            )


def read_truth(path: Path) -> list[str]:
    """Return the true label of each frame."""
    labels = []
    for row in path.read_text().splitlines()[1:]:
        first, last, label = row.split("\t")
        labels += [label] * (int(last) - int(first) + 1)
    return labels


def delay(labels: list[str], true_label: str) -> int:
    """Return the number of frames until the label is correct, or the number of all frames if it never is."""
    return labels.index(true_label) if true_label in labels else len(labels)


def spoil(image: np.ndarray, rng: np.random.Generator, fraction: float) -> np.ndarray:
    """Make an image motion-blurred, or dark and noisy, with the probability `fraction`; uint8 [H, W, 3] BGR."""
    if rng.random() >= fraction:
        return image
    if rng.random() < 0.5:
        return cv2.blur(image, (image.shape[1] // 6, 3))
    return (image * 0.3 + rng.normal(0, 40, image.shape)).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
