"""NVIDIA's thumbs tutorial: the recipe of its notebook (see new_rooms.py), and its loop of eager PyTorch.

The tutorial offers ResNet18, AlexNet and SqueezeNet. SqueezeNet is taken, whose weights need no download. Its camera
gives images of 224x224, so images are resized in the same way for training and in the loop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import job
import numpy as np
import torch
import torchvision

MEAN, STD = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def main() -> None:
    """Do the job."""
    job.run(train, loop)


def train(task: job.Job) -> dict:
    """Train by the recipe on all images. The tutorial's own accuracy is that on the images that it trained on."""
    sys.path.append(str(Path(__file__).parent.parent))
    from new_rooms import train_as_the_tutorial

    torch.manual_seed(task.seed)
    files = sorted(Path(task.train).glob("*/*"))
    class_ids = torch.tensor([task.labels.index(file.parent.name) for file in files])
    images = np.stack([_resize(cv2.imread(str(file))) for file in files])
    network = _build_network(len(task.labels), "DEFAULT")
    train_as_the_tutorial(network, images, class_ids, torch.device(task.device), num_epochs=1 if task.quick else 10)
    file = Path(task.model) / "model.pth"
    torch.save(network.cpu().state_dict(), file)
    columns = job.training_cost(task)
    classify = _classifier(network)
    answers = torch.stack([classify(cv2.imread(str(file))) for file in files]).argmax(1)
    return {
        **columns,
        "probabilities": [classify(cv2.imread(path)).tolist() for path in task.test],
        "claim": float((answers == class_ids).float().mean()),
        "model_mb": job.size_mb(file),
    }


def loop(task: job.Job) -> Iterator[tuple[str, float]]:
    """Classify an image of 480x640 in memory."""
    network = _build_network(len(task.labels), None)
    network.load_state_dict(torch.load(Path(task.model) / "model.pth"))
    classify = _classifier(network)
    return job.repeat(lambda image: task.labels[int(classify(image).argmax())], cv2.imread(task.image))


def _build_network(num_classes: int, weights: str | None) -> torch.nn.Module:
    """Build the network as the tutorial does. TORCH_HOME holds the weights."""
    network = torchvision.models.squeezenet1_1(weights=weights)
    network.classifier[1] = torch.nn.Conv2d(512, num_classes, kernel_size=1)
    return network


def _classifier(network: torch.nn.Module) -> Callable[[np.ndarray], torch.Tensor]:
    """Return the tutorial's loop as a function from an image, uint8 [H, W, 3] BGR, to its probabilities."""
    network.eval()

    def classify(image: np.ndarray) -> torch.Tensor:
        tensor = torchvision.transforms.functional.to_tensor(_resize(image))
        tensor.sub_(MEAN).div_(STD)
        with torch.no_grad():
            return torch.softmax(network(tensor[None]), dim=1)[0]

    return classify


def _resize(image: np.ndarray) -> np.ndarray:
    """Return an image as the tutorial's camera gives it, uint8 [224, 224, 3], but RGB, as the weights expect."""
    return cv2.cvtColor(cv2.resize(image, (224, 224)), cv2.COLOR_BGR2RGB)


if __name__ == "__main__":
    main()
