"""Flicker against delay: what smoothing does to the answers for a clip whose truth is known.

    python benchmarks/steady.py MODEL.onnx CLIP.mp4 TRUTH.tsv

The truth's lines are `first_frame last_frame label`, tabs between, under a line of titles. Flicker is how many more
times the answer changes than the truth does, delay how many frames pass from a change of the truth to its answer. A
clean clip may tell no setting from another, so it is asked again with one frame in five spoilt: motion-blurred,
or dark and noisy, as a webcam's are when something moves or the light goes.
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

SETTINGS = ((0, 0), (0.05, 0), (0.1, 0), (0.15, 0), (0.2, 0), (0.3, 0), (0, 0.1), (0.1, 0.1))  # smoothing, min hold


def main() -> None:
    """Print one row a setting, for the clip as it is and spoilt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "clip", "truth"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    classifier = Classifier(options.model)
    truth = []
    for row in options.truth.read_text().splitlines()[1:]:
        first, last, label = row.split("\t")
        truth += [label] * (int(last) - int(first) + 1)
    changes = [index for index in range(1, len(truth)) if truth[index] != truth[index - 1]]
    for share in (0.0, 0.2):
        rng = np.random.default_rng(0)
        with Camera(options.clip) as camera:
            frames = [(frame.time, spoil(frame.image, rng, share)) for frame in camera]
        answers = [(time, classifier.classify(image)) for time, image in frames]
        print(f"{100 * share:.0f} % of {len(frames)} frames spoilt, {len(changes)} changes")
        print(f"{'smoothing':>10}{'min hold':>10}{'extra changes':>15}{'delays in frames':>22}{'accuracy':>10}")
        for smoothing, min_hold in SETTINGS:
            smooth = Smoother(classifier.contract.unknown_threshold, smoothing, min_hold)
            labels = [smooth(answer, time).label for time, answer in answers]
            extra = sum(a != b for a, b in itertools.pairwise(labels)) - len(changes)
            ends = [*changes[1:], len(truth)]
            delays = [delay(labels[start:end], truth[start]) for start, end in zip(changes, ends, strict=True)]
            right = np.mean([a == b for a, b in zip(labels, truth, strict=True)])
            print(f"{smoothing:>9}s{min_hold:>9}s{extra:>15}{' '.join(map(str, delays)):>22}{right:>10.3f}")


def delay(labels: list[str], label: str) -> int:
    """Return the frames until the answer is right; all of them if it never is."""
    return labels.index(label) if label in labels else len(labels)


def spoil(image: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Return a frame, uint8 [H, W, 3] BGR: with probability `share` motion-blurred, or dark and noisy."""
    if rng.random() >= share:
        return image
    if rng.random() < 0.5:
        return cv2.blur(image, (image.shape[1] // 6, 3))
    return (image * 0.3 + rng.normal(0, 40, image.shape)).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
