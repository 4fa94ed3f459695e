"""NVIDIA's thumbs tutorial: its recipe (all layers, SGD, 10 epochs) and its loop of eager PyTorch.

The tutorial offers ResNet18, AlexNet and SqueezeNet. SqueezeNet is taken, whose weights need no download.
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
    import new_rooms

    from teachcam.contract import Contract
    from teachcam.train.data.dataset import Dataset

    torch.manual_seed(task.seed)
    dataset = Dataset(Path(task.train), labels=tuple(task.labels))
    network = _build_network(len(task.labels), "DEFAULT")
    contract = Contract(labels=tuple(task.labels), input_size=(224, 224))
    new_rooms.train_as_the_tutorial(network, dataset.examples(dataset.samples), contract, torch.device("cpu"))
    file = Path(task.model) / "model.pth"
    torch.save(network.state_dict(), file)
    columns = job.training_cost(task)
    classify = _classifier(network)
    seen = [classify(cv2.imread(str(sample.path))).argmax() for sample in dataset.samples]
    right = [sample.label == task.labels[class_id] for sample, class_id in zip(dataset.samples, seen, strict=True)]
    return {
        **columns,
        "probabilities": [classify(cv2.imread(path)).tolist() for path in task.test],
        "claim": float(np.mean(right)),
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
        resized = cv2.cvtColor(cv2.resize(image, (224, 224)), cv2.COLOR_BGR2RGB)
        tensor = torchvision.transforms.functional.to_tensor(resized)
        tensor.sub_(MEAN).div_(STD)
        with torch.no_grad():
            return torch.softmax(network(tensor[None]), dim=1)[0]

    return classify


if __name__ == "__main__":
    main()
