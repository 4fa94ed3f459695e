"""How right a model is in rooms it was never trained in, and how right it says it is: three folds of whole sessions.

    python benchmarks/new_rooms.py DATA [CONTENDER ...] [--seeds 3]

DATA is a dataset whose sessions are rooms. Sessions are sorted by name; fold k holds out those whose index modulo 3
is k. Contenders are the strategies of train/finetune.py, as it runs them, and `tutorial`: the thumbs tutorial's recipe
(all layers, SGD 0.001, momentum 0.9, batch 16, 10 epochs, mild colour jitter, float32, all rooms of the fold). All
begin with the same ImageNet SqueezeNet 1.1.

`claim` is the accuracy that the run found on the sessions it held out itself, `ECE` the expected calibration error of
its probabilities in the new rooms.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms import v2

from collect.dataset import Item, read_image, read_items
from collect.resize import shrink
from train.backbones import INPUT_SIZE, Deployed, Network, build_network
from train.calibrate import expected_calibration_error
from train.contract import Contract, preprocess
from train.evaluate import predict
from train.fit import Examples
from train.split import split_by_session
from train.strategies import STRATEGIES, Learner

FOLDS = 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Print a row for each contender: the folds' accuracy, their mean, its claim, its ECE and its seconds a fold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("contenders", nargs="*", default=["head", "auto"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    options = parser.parse_args()
    if unknown := set(options.contenders) - {"tutorial", "auto", *STRATEGIES}:
        parser.error(f"no contender {', '.join(unknown)}")
    items = read_items(options.data)
    labels = tuple(sorted({item.label for item in items}))
    frames = {item.path: shrink(read_image(item.path), INPUT_SIZE) for item in items}
    rooms = sorted({item.session for item in items})
    fold_of = {room: index % FOLDS for index, room in enumerate(rooms)}
    contract = Contract(labels=labels, input_size=INPUT_SIZE)

    def examples(part: list[Item]) -> Examples:
        ids = torch.tensor([labels.index(item.label) for item in part], dtype=torch.int64)
        return Examples([frames[item.path] for item in part], ids, [item.session for item in part])

    print(f"{len(items)} frames, {len(rooms)} rooms, {len(labels)} labels; {torch.get_num_threads()} threads")
    for contender in options.contenders:
        rows = []  # accuracy, claim, ECE, seconds: [seed][fold]
        for seed in range(options.seeds):
            for fold in options.folds:
                inside = [item for item in items if fold_of[item.session] != fold]
                outside = examples([item for item in items if fold_of[item.session] == fold])
                network, _ = build_network("squeezenet1_1", len(labels), "imagenet", seed)
                started = time.monotonic()
                if contender == "tutorial":
                    torch.manual_seed(seed)
                    train_as_the_tutorial(network, examples(inside), contract)
                    own, claim = contract, np.nan
                else:
                    split = split_by_session(inside, seed=seed)
                    held_out = examples(split.held_out)
                    learner = Learner(
                        network, contract, examples(split.train), held_out, torch.device("cpu"), seed, say=print
                    )
                    outcome = learner.learn(contender)
                    network, own = outcome.network, outcome.contract
                    claim = (outcome.probabilities.argmax(1) == held_out.class_ids.numpy()).mean()
                seconds = time.monotonic() - started
                probabilities = predict(Deployed(network.cpu(), own), outside.frames, own)
                ids = outside.class_ids.numpy()
                accuracy = (probabilities.argmax(1) == ids).mean()
                rows.append((accuracy, claim, expected_calibration_error(probabilities, ids), seconds))
                print(
                    f"  {contender} seed {seed} fold {fold}: " + " ".join(f"{value:.3f}" for value in rows[-1]),
                    flush=True,
                )
        table = np.array(rows).reshape(options.seeds, len(options.folds), 4).mean(0)
        accuracy, claim, error, seconds = table.mean(0)
        folds = "  ".join(f"{value:.3f}" for value in table[:, 0])
        print(
            f"{contender:<12} {folds}   mean {accuracy:.3f}   claim {claim:.3f}   ECE {error:.3f}   "
            f"{seconds:.0f} s a fold",
            flush=True,
        )


def train_as_the_tutorial(network: Network, examples: Examples, contract: Contract) -> None:
    """Train a network the way the thumbs tutorial does it."""
    jitter = v2.Compose(
        [v2.ColorJitter(0.1, 0.1, 0.1, 0.1), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    images = torch.from_numpy(np.stack([preprocess(frame, contract) for frame in examples.frames])).permute(0, 3, 1, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
    network.train()
    for _ in range(10):
        for batch in torch.randperm(len(images)).split(16):
            loss = torch.nn.functional.cross_entropy(
                network(torch.stack([jitter(images[index]) for index in batch])), examples.class_ids[batch]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    main()
