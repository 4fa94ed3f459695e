"""Measure images per second while all layers of a network train, and compare with NVIDIA's thumbs tutorial.

    python benchmarks/train_speed.py [--backbone resnet18] [--num-images 512] [--batch-size 32]

The tutorial's DataLoader (two workers) decodes JPEG files in every epoch and changes colors with PIL, and it trains in
float32. Ours decodes once and trains in 16 bits where the device can. `limit` is our training step on one batch that
stays on the device: the speed if loading images took no time.

Epochs of the three take turns. The weights are random, which does not change the times.
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

from teachcam.collect.hands import LABELS
from teachcam.collect.synthetic import render
from teachcam.contract import Contract
from teachcam.processor import processor_name
from teachcam.train.augment.augmentation import Augmentation
from teachcam.train.augment.foreground import Foregrounds
from teachcam.train.config.train_config import TrainConfig
from teachcam.train.data.dataset import Dataset, Examples
from teachcam.train.engine.context import Context
from teachcam.train.engine.trainer import Trainer, TrainingModel
from teachcam.train.model.backbones import INPUT_SIZE, build_network

NUM_EPOCHS = 3  # that are timed, after one to warm up


def main() -> None:
    """Print images per second, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--num-images", type=int, default=512, metavar="N")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    processor = f"{name}, {processor_name()}"
    print(
        f"{options.backbone}, {options.num_images} images, batches of {options.batch_size}; torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), options.num_images)
        dataset = Dataset(Path(folder))
        examples = dataset.examples(dataset.samples)
        contract = Contract(labels=dataset.labels, input_size=INPUT_SIZE)
        contenders = {
            "tutorial": tutorial(Path(folder), options.backbone, options.batch_size, device),
            "ours": ours(examples, contract, options.backbone, options.batch_size, device),
            "limit": limit(examples, contract, options.backbone, options.batch_size, device),
        }
        speeds = {contender: [] for contender in contenders}
        for turn in range(NUM_EPOCHS + 1):
            for contender, epoch in contenders.items():
                images, seconds = epoch()
                if turn:
                    speeds[contender].append(images / seconds)
    for contender, speed in speeds.items():
        print(
            f"{contender:<10}{np.median(speed):>10.0f} images per second ({min(speed):.0f} to {max(speed):.0f}), "
            f"on {processor}"
        )
    by_name = {contender: np.array(speed) for contender, speed in speeds.items()}
    print(
        f"ours / tutorial {np.median(by_name['ours'] / by_name['tutorial']):.1f}, "
        f"ours / limit {np.median(by_name['ours'] / by_name['limit']):.2f}, on {processor}"
    )


def write_images(folder: Path, num_images: int) -> None:
    """Write JPEG files of 640x480 pixels, one folder for each label."""
    per_label = -(-num_images // len(LABELS))
    for label in LABELS:
        (folder / label).mkdir()
        for number, image in enumerate(render(label, 1, per_label)):
            cv2.imwrite(str(folder / label / f"a_{number:04d}.jpg"), image)


def tutorial(folder: Path, backbone: str, batch: int, device: torch.device) -> Callable[[], tuple[int, float]]:
    """Return a function that trains one epoch as the tutorial does, and returns the number of images and seconds."""
    transform = transforms.Compose(
        [
            transforms.ColorJitter(0.1, 0.1, 0.1, 0.1),
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    loader = DataLoader(ImageFolder(str(folder), transform), batch, shuffle=True, num_workers=2)
    network = build_network(backbone, len(LABELS))[0].to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)

    def epoch() -> tuple[int, float]:
        started, images = time.perf_counter(), 0
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(inputs.to(device)), targets.to(device))
            loss.backward()
            optimizer.step()
            loss.item()  # the tutorial sums the loss of each batch
            images += len(inputs)
        return images, time.perf_counter() - started

    return epoch


def ours(examples: Examples, contract: Contract, backbone: str, batch: int, device: torch.device):
    """Return a function that trains one epoch of ours, without validation, as in the tutorial."""
    network, _ = build_network(backbone, len(contract.labels))
    augmentation = Augmentation(examples.images, Foregrounds.empty(len(examples)))
    nothing = Examples([], examples.class_ids[:0], [], [])  # to validate on
    settings = TrainConfig(epochs=2, lr=1e-3, backbone_lr=1e-3, trainable_fraction=1.0, batch_size=batch)

    def epoch() -> tuple[int, float]:
        trainer = Trainer(network, contract, examples, nothing, augmentation, settings, Context(device))
        lines = trainer.fit()
        return len(examples), len(examples) / lines[-1]["images_per_second"]

    return epoch


def limit(examples: Examples, contract: Contract, backbone: str, batch: int, device: torch.device):
    """Return a function that runs an epoch's steps on one batch, which stays on the device."""
    network = build_network(backbone, len(contract.labels))[0].to(device, memory_format=torch.channels_last).train()
    model = TrainingModel(network, contract, 0.0, device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    images = torch.zeros(batch, *contract.input_size, 3, dtype=torch.uint8, device=device)
    targets = torch.zeros(batch, dtype=torch.int64, device=device)
    steps = -(-len(examples) // batch)

    def epoch() -> tuple[int, float]:
        started = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images), targets)
            loss.backward()
            optimizer.step()
        loss.item()
        return steps * batch, time.perf_counter() - started

    return epoch


if __name__ == "__main__":
    main()
