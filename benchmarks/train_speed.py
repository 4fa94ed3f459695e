"""Images a second while a network is fine-tuned, all layers: ours against the tutorial's DataLoader loop.

    python benchmarks/train_speed.py [--backbone resnet18] [--images 512] [--batch 32]

The tutorial reads JPEG files anew in each epoch (two workers), changes colors with PIL, and trains in float32. Ours
decodes once, augments (on a GPU there), and trains in 16 bit where the device has it. `limit` is our step on one batch
that lies ready: what the device could do if frames cost nothing. Epochs of the three take turns; weights are random,
which changes no time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from teachcam.collect.synthetic import LABELS, render
from teachcam.contract import Contract
from teachcam.train.augment.cpu import Augmentation
from teachcam.train.augment.foreground import Foregrounds
from teachcam.train.config import TrainConfig
from teachcam.train.data.dataset import Dataset, Examples
from teachcam.train.engine.context import Context
from teachcam.train.engine.trainer import _Model, fit
from teachcam.train.model.backbones import INPUT_SIZE, build_network

EPOCHS = 3  # timed, after one to warm up


def main() -> None:
    """Print images a second, and the ratios of each turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}; {options.backbone}, {options.images} images, batch {options.batch}")
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), options.images)
        dataset = Dataset(Path(folder))
        examples = dataset.examples(dataset.items)
        contract = Contract(labels=dataset.labels, input_size=INPUT_SIZE)
        contenders = {
            "tutorial": tutorial(Path(folder), options.backbone, options.batch, device),
            "ours": ours(examples, contract, options.backbone, options.batch, device),
            "limit": limit(examples, contract, options.backbone, options.batch, device),
        }
        speeds = {contender: [] for contender in contenders}
        for turn in range(EPOCHS + 1):
            for contender, epoch in contenders.items():
                images, seconds = epoch()
                if turn:
                    speeds[contender].append(images / seconds)
    for contender, own in speeds.items():
        print(f"{contender:<10}{np.median(own):>10.0f} images a second ({min(own):.0f} to {max(own):.0f})")
    ours_, tutorial_, limit_ = (np.array(speeds[key]) for key in ("ours", "tutorial", "limit"))
    print(f"ours / tutorial {np.median(ours_ / tutorial_):.1f}, ours / limit {np.median(ours_ / limit_):.2f}")


def write_images(folder: Path, count: int) -> None:
    """Write JPEG frames of 640x480, as a webcam's are, a folder for each label."""
    each = -(-count // len(LABELS))
    for label in LABELS:
        (folder / label).mkdir()
        for number, image in enumerate(render(label, 1, each)):
            cv2.imwrite(str(folder / label / f"a_{number:04d}.jpg"), image)


def tutorial(folder: Path, backbone: str, batch: int, device: torch.device) -> Callable[[], tuple[int, float]]:
    """Return an epoch of the tutorial's loop: how many images, in how many seconds."""
    change = transforms.Compose(
        [
            transforms.ColorJitter(0.1, 0.1, 0.1, 0.1),
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    loader = DataLoader(ImageFolder(str(folder), change), batch, shuffle=True, num_workers=2)
    network = build_network(backbone, len(LABELS))[0].to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)

    def epoch() -> tuple[int, float]:
        started, images = time.perf_counter(), 0
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(inputs.to(device)), targets.to(device))
            loss.backward()
            optimizer.step()
            loss.item()  # as it adds the loss up
            images += len(inputs)
        return images, time.perf_counter() - started

    return epoch


def ours(examples: Examples, contract: Contract, backbone: str, batch: int, device: torch.device):
    """Return an epoch of ours, without measuring on held-out frames, which the tutorial's has not either."""
    network, _ = build_network(backbone, len(contract.labels))
    augmentation = Augmentation(examples.frames, Foregrounds.none(len(examples)))
    settings = TrainConfig(epochs=2, lr=1e-3, backbone_lr=1e-3, trainable_fraction=1.0, batch=batch)

    def epoch() -> tuple[int, float]:
        lines = fit(network, contract, examples, examples[:0], augmentation, settings, Context(device))
        return len(examples), len(examples) / lines[-1]["images_per_second"]

    return epoch


def limit(examples: Examples, contract: Contract, backbone: str, batch: int, device: torch.device):
    """Return as many steps as an epoch has, on one batch that lies on the device."""
    network = build_network(backbone, len(contract.labels))[0].to(device, memory_format=torch.channels_last).train()
    model = _Model(network, contract, 0.0, device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    frames = torch.zeros(batch, *contract.input_size, 3, dtype=torch.uint8, device=device)
    targets = torch.zeros(batch, dtype=torch.int64, device=device)
    steps = -(-len(examples) // batch)

    def epoch() -> tuple[int, float]:
        started = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(frames), targets)
            loss.backward()
            optimizer.step()
        loss.item()
        return steps * batch, time.perf_counter() - started

    return epoch


if __name__ == "__main__":
    main()
