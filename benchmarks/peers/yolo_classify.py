"""Ultralytics: `yolo classify train` with its defaults, and `predict(stream=True)`.

Its own weights (yolo*-cls.pt) are a download. Its network is built from a torchvision network, as its models with
ResNet18 are (cfg/models/11/yolo11-cls-resnet18.yaml): here from SqueezeNet, with ImageNet weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import job
from ultralytics import YOLO

MODEL = """
nc: 1000
backbone:
  - [-1, 1, TorchVision, [512, squeezenet1_1, DEFAULT, True, 1]]
head:
  - [-1, 1, Classify, [nc]]
"""


def main() -> None:
    """Do the job."""
    job.run(train, loop)


def train(task: job.Job) -> dict:
    """Train with the defaults. Ultralytics itself splits the folder, at random."""
    folder = Path(task.model)
    data = Path(shutil.copytree(task.train, folder / "images"))  # it writes its split beside this folder
    (folder / "squeezenet-cls.yaml").write_text(MODEL)
    model = YOLO(folder / "squeezenet-cls.yaml", task="classify")
    model.train(
        data=str(data),
        imgsz=224,
        epochs=2 if task.quick else 100,  # 100 is the default
        seed=task.seed,
        device=task.device,
        plots=False,  # they download a font
        project=str(folder),
        name="run",
        verbose=False,
    )
    columns = job.training_cost(task)
    best = YOLO(folder / "run" / "weights" / "best.pt")
    order = [next(i for i, name in best.names.items() if name == label) for label in task.labels]
    answers = best.predict([str(path) for path in task.test], stream=True, batch=1, device="cpu", verbose=False)
    return {
        **columns,
        "probabilities": [answer.probs.data[order].tolist() for answer in answers],
        "claim": float(model.metrics.top1),
        "model_mb": job.size_mb(folder / "run" / "weights" / "best.pt"),
    }


def loop(task: job.Job) -> Iterator[tuple[str, float]]:
    """Classify the frames of a clip. The seconds are its own, without reading the clip."""
    model = YOLO(Path(task.model) / "run" / "weights" / "best.pt")
    while True:
        for answer in model.predict(task.clip, stream=True, device="cpu", verbose=False):
            yield model.names[answer.probs.top1], sum(answer.speed.values()) / 1000


if __name__ == "__main__":
    main()
