"""fastai: `vision_learner(...).fine_tune(4)`, as its book trains a classifier of photos (chapter 2), and `predict`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import job
import torch
from fastai.vision.all import (
    ImageDataLoaders,
    PILImage,
    RandomResizedCrop,
    accuracy,
    aug_transforms,
    load_learner,
    set_seed,
    vision_learner,
)


def main() -> None:
    """Do the job."""
    job.run(train, loop)


def train(task: job.Job) -> dict:
    """Train with the book's transforms. fastai itself holds out a fifth of the images, at random."""
    set_seed(task.seed)
    loaders = ImageDataLoaders.from_folder(
        task.train,
        valid_pct=0.2,
        seed=task.seed,
        item_tfms=RandomResizedCrop(224, min_scale=0.5),
        batch_tfms=aug_transforms(),
        device=torch.device(task.device),
    )
    weights = {"file": str(Path(task.weights) / "efficientnet_lite0.pth")}
    learner = vision_learner(loaders, "tf_efficientnet_lite0", metrics=accuracy, pretrained_cfg_overlay=weights)
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(1 if task.quick else 4)
        file = Path(task.model) / "model.pkl"
        learner.export(file)
        columns = job.training_cost(task)
        _, claim = learner.validate()
        probabilities, _ = learner.get_preds(dl=learner.dls.test_dl([Path(path) for path in task.test]))
    order = [list(loaders.vocab).index(label) for label in task.labels]
    return {
        **columns,
        "probabilities": probabilities[:, order].tolist(),
        "claim": float(claim),
        "model_mb": job.size_mb(file),
    }


def loop(task: job.Job) -> Iterator[tuple[str, float]]:
    """Classify an image of 480x640 in memory, RGB."""
    learner = load_learner(Path(task.model) / "model.pkl")
    image = cv2.cvtColor(cv2.imread(task.image), cv2.COLOR_BGR2RGB)
    with learner.no_bar(), learner.no_logging():
        yield from job.repeat(lambda array: str(learner.predict(PILImage.create(array))[0]), image)


if __name__ == "__main__":
    main()
