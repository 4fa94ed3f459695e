"""Compare the tuned way to run a model with every other way, on a calm device and beside two busy programs.

python benchmarks/tuning.py MODEL.onnx [--data DATA]
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from teachcam.live import tuning
from teachcam.live.classifier import Classifier
from teachcam.live.onnx_model import Runner
from teachcam.live.timing import median_times
from teachcam.processor import processor_name

NUM_RUNS = 400


def main() -> None:
    """Tune, and print how far behind the best other way the tuned one is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(shutil.copy(options.model, folder))
        tuned = tuning.open_model(model, tune=True, data=options.data)
        ways = {"tuned": tuned.predict_probabilities}
        for timing in tuning.read_tuning(model).timings:
            classifier = Classifier(tuning.tuned_file(model, timing.precision), timing.provider, timing.threads or None)
            ways[timing.describe()] = classifier.predict_probabilities
        image = np.zeros((*tuned.contract.input_size, 3), np.uint8)
        _compare("calm", ways, image)
        with tuning._busy_programs():
            _compare("beside two busy programs", ways, image)
    print(f"on {processor_name()}, medians of {NUM_RUNS}")


def _compare(name: str, ways: dict[str, Runner], image: np.ndarray) -> None:
    times = median_times({way: partial(run, image) for way, run in ways.items()}, NUM_RUNS)
    best = min(time for way, time in times.items() if way != "tuned")
    print(f"{name}: tuned {times['tuned']:.1f} ms, {100 * (times['tuned'] / best - 1):+.0f} % of the best other")
    for way, time in times.items():
        print(f"    {way}: {time:.1f} ms")


if __name__ == "__main__":
    main()
