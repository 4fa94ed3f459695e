"""How right a model is in rooms it was never trained in: each strategy, three folds of whole sessions.

    python benchmarks/new_rooms.py DATA [CONTENDER ...]

DATA is a dataset whose sessions are rooms. Sessions are sorted by name; fold k holds out those whose index modulo 3
is k. Contenders are the strategies of train/finetune.py and `tutorial`: the thumbs tutorial's recipe (all layers, SGD
0.001, momentum 0.9, batch 16, 10 epochs, mild colour jitter, float32), all from the same ImageNet SqueezeNet 1.1.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from torchvision.transforms import v2

from collect.dataset import read_image, read_items
from collect.resize import shrink
from train.backbones import INPUT_SIZE, Deployed, Network, build_network
from train.contract import Contract, preprocess
from train.evaluate import predict
from train.strategies import EPOCHS, STRATEGIES, Lesson

FOLDS = 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Print a row a contender: accuracy of each fold and their mean, seconds of training a fold."""
    data, *contenders = sys.argv[1:]
    items = read_items(data)
    labels = tuple(sorted({item.label for item in items}))
    frames = [shrink(read_image(item.path), INPUT_SIZE) for item in items]
    targets = torch.tensor([labels.index(item.label) for item in items])
    rooms = sorted({item.session for item in items})
    fold_of = np.array([rooms.index(item.session) % FOLDS for item in items])
    contract = Contract(labels=labels, input_size=INPUT_SIZE)
    print(f"{len(items)} frames, {len(rooms)} rooms, {len(labels)} labels; {torch.get_num_threads()} threads")
    for contender in contenders or ["head", "full"]:
        accuracies, seconds = [], []
        for fold in range(FOLDS):
            inside, outside = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            network, _ = build_network("squeezenet1_1", len(labels), "imagenet")
            own = [frames[index] for index in inside]
            started = time.monotonic()
            if contender == "tutorial":
                train_as_the_tutorial(network, own, targets[inside], contract)
            else:
                nothing = torch.empty(0, dtype=torch.int64)
                lesson = Lesson(
                    network, contract, own, targets[inside], [], nothing, EPOCHS[contender], torch.device("cpu")
                )
                STRATEGIES[contender](lesson)
            seconds.append(time.monotonic() - started)
            answers = predict(Deployed(network, contract), [frames[index] for index in outside], contract).argmax(1)
            accuracies.append((answers == targets[outside].numpy()).mean())
        folds = "  ".join(f"{accuracy:.3f}" for accuracy in accuracies)
        print(f"{contender:<10} {folds}   mean {np.mean(accuracies):.3f}   {np.mean(seconds):.0f} s a fold", flush=True)


def train_as_the_tutorial(
    network: Network, frames: list[np.ndarray], targets: torch.Tensor, contract: Contract
) -> None:
    """Train a network the way the thumbs tutorial does it."""
    jitter = v2.Compose(
        [v2.ColorJitter(0.1, 0.1, 0.1, 0.1), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    images = torch.from_numpy(np.stack([preprocess(frame, contract) for frame in frames])).permute(0, 3, 1, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
    network.train()
    for _ in range(10):
        for batch in torch.randperm(len(images)).split(16):
            loss = torch.nn.functional.cross_entropy(
                network(torch.stack([jitter(images[index]) for index in batch])), targets[batch]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    main()
