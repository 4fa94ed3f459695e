"""Two bare loops on the file that teachcam exported: ONNX Runtime with its defaults, and OpenCV's dnn.

Its option `engine` is `onnxruntime` or `opencv`. Neither smooths or answers `unknown`, so they show about the
least time that a loop needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import job
import numpy as np


def main() -> None:
    """Do the job."""
    job.run(None, loop)


def loop(task: job.Job) -> Iterator[tuple[str, float]]:
    """Classify an image of 480x640 in memory."""
    open_model = {"onnxruntime": _open_onnxruntime, "opencv": _open_opencv}[task.options["engine"]]
    run = open_model(str(Path(task.model) / "model.onnx"))

    def classify(image: np.ndarray) -> str:
        resized = cv2.cvtColor(cv2.resize(image, (224, 224)), cv2.COLOR_BGR2RGB)
        return task.labels[int(run(resized[None]).argmax())]

    return job.repeat(classify, cv2.imread(task.image))


def _open_onnxruntime(path: str) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def _open_opencv(path: str) -> Callable[[np.ndarray], np.ndarray]:
    network = cv2.dnn.readNetFromONNX(path)

    def run(images: np.ndarray) -> np.ndarray:
        network.setInput(images)
        return network.forward()

    return run


if __name__ == "__main__":
    main()
