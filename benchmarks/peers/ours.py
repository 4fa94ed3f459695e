"""teachcam: the commands `train` and `export` as a user types them, and the classifier of the live loop.

Its options: `strategy` and `backbone`, as those of train/finetune.py. The strategy `teach` is teaching on the device,
as teach/teach.py and the studio do it, without PyTorch.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import job


def main() -> None:
    """Do the job."""
    job.run(train, loop)


def train(task: job.Job) -> dict:
    """Train, export, and classify the test images with the exported file."""
    folder = Path(task.model)
    # A folder of its own: what is kept beside the images for the next time would make the next training faster.
    data = shutil.copytree(task.train, folder / "data", symlinks=True)
    columns = _teach(task, data) if task.options["strategy"] == "teach" else _train(task, data)

    from teachcam.images import read_image
    from teachcam.live.classifier import Classifier

    classifier = Classifier(folder / "model.onnx", "cpu")
    answers = [classifier.classify(read_image(Path(path))).probabilities for path in task.test]
    return {
        **columns,
        "probabilities": [[answer[label] for label in task.labels] for answer in answers],
        "model_mb": job.size_mb(folder / "model.onnx"),
    }


def _train(task: job.Job, data: Path) -> dict:
    """Train and export by the commands."""
    folder = Path(task.model)
    options = ["--strategy", task.options["strategy"], "--backbone", task.options["backbone"]]
    _run("train", "--data", str(data), "--out", str(folder / "run"), "--seed", str(task.seed), *options)
    columns = job.training_cost(task)
    started = time.perf_counter()
    _run("export", "--checkpoint", str(folder / "run/checkpoint.pt"), "--out", str(folder / "model.onnx"))
    columns["export_seconds"] = time.perf_counter() - started
    validation = json.loads((folder / "run/metrics.json").read_text())["validation"]
    return {**columns, "claim": validation["accuracy"], "claim_interval": validation["confidence_interval"]}


def _teach(task: job.Job, data: Path) -> dict:
    """Learn all images at once, as after a restart of the studio without its cache, and write the model file."""
    from teachcam.teach.backbone import Backbone
    from teachcam.teach.model_file import save_model
    from teachcam.teach.teacher import Teacher

    teacher = Teacher(data, Backbone(data / ".teach", "cpu"))
    teacher.wait()
    columns = job.training_cost(task)
    started = time.perf_counter()
    save_model(Path(task.model) / "model.onnx", teacher)
    teacher.close()
    return {**columns, "export_seconds": time.perf_counter() - started, "claim": teacher.progress.accuracy}


def _run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", "teachcam", *command], text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"teachcam {command[0]}: {done.stderr.strip().splitlines()[-1]}")


def loop(task: job.Job) -> Iterator[tuple[str, float]]:
    """Classify an image of 480x640 in memory."""
    from teachcam.images import read_image
    from teachcam.live.classifier import Classifier

    classifier = Classifier(Path(task.model) / "model.onnx", "cpu")
    return job.repeat(lambda image: classifier.classify(image).label, read_image(Path(task.image)))


if __name__ == "__main__":
    main()
