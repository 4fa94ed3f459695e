"""How right a model is in rooms it was never trained in, and how right it says it is: three folds of whole sessions.

    python benchmarks/new_rooms.py DATA [CONTENDER ...] [--seeds 0 1 2] [--without LABEL]

DATA is a dataset whose sessions are rooms. Sessions are sorted by name; fold k holds out those whose index modulo 3
is k. Contenders are the strategies of train/finetune.py, as it runs them, and `tutorial`: the thumbs tutorial's recipe
(all layers, SGD 0.001, momentum 0.9, batch 16, 10 epochs, mild color jitter, float32, all rooms of the fold). All
begin with the same ImageNet SqueezeNet 1.1.

`claim` is the accuracy that the run found on the sessions it held out itself, `ECE` the expected calibration error of
its probabilities in the new rooms. With `--without LABEL` that label's frames are left out of training and asked in
the new rooms: `kept` is the share of the other frames whose answer is not `unknown`, `caught` the share of the label's
frames whose answer is, and `caught at 95 %` the latter with a threshold that keeps 95 % of the others in the new rooms.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms import v2

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.calibration import expected_calibration_error
from teachcam.train.config import BUDGET, STRATEGIES
from teachcam.train.data.dataset import Dataset, Examples
from teachcam.train.data.split import split_by_session
from teachcam.train.engine.strategies import Learner
from teachcam.train.model.backbones import INPUT_SIZE, Network, build_network
from teachcam.train.model.inference import InferenceModel, predict

FOLDS = 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Print a row for each contender: the folds' accuracy, and the means of its other figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("contenders", nargs="*", default=["head", "auto"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for auto")
    parser.add_argument("--without", metavar="LABEL", help="the label that stands for something never seen")
    options = parser.parse_args()
    if unknown := set(options.contenders) - {"tutorial", "auto", *STRATEGIES}:
        parser.error(f"no contender {', '.join(unknown)}")
    dataset = Dataset(options.data)
    strangers = [item for item in dataset.items if item.label == options.without]
    dataset.labels = tuple(label for label in dataset.labels if label != options.without)
    dataset.items = [item for item in dataset.items if item.label != options.without]
    rooms = sorted({item.session for item in dataset.items})
    fold_of = {room: index % FOLDS for index, room in enumerate(rooms)}
    print(f"{len(dataset.items)} frames, {len(rooms)} rooms; {torch.get_num_threads()} threads")
    for contender in options.contenders:
        results = {fold: [] for fold in options.folds}
        for seed in options.seeds:
            for fold in options.folds:
                inside = [item for item in dataset.items if fold_of[item.session] != fold]
                outside = dataset.examples([item for item in dataset.items if fold_of[item.session] == fold])
                unseen = [dataset.frames[item.path] for item in strangers if fold_of.get(item.session) == fold]
                result = measure(contender, dataset, inside, outside, unseen, seed, options.budget)
                results[fold].append(result)
                print(f"  {contender}, seed {seed}, fold {fold}: {result}", flush=True)
        folds = "  ".join(f"{np.mean([result['accuracy'] for result in row]):.3f}" for row in results.values())
        mean = Result.mean([result for row in results.values() for result in row])
        print(f"{contender:<12} {folds}   mean {mean}", flush=True)


class Result(dict):
    """Figures by name."""

    @classmethod
    def mean(cls, results: list[Result]) -> Result:
        """Return the means of results with the same names."""
        return cls({name: float(np.mean([result[name] for result in results])) for name in results[0]})

    def __str__(self) -> str:
        """In a line."""
        return "   ".join(f"{name} {value:.0f}" if value > 2 else f"{name} {value:.3f}" for name, value in self.items())


def measure(contender: str, dataset: Dataset, inside: list, outside: Examples, unseen: list, seed: int, budget: float):
    """Train on items `inside`, ask about frames `outside` and, if any, frames `unseen` of no label."""
    contract = Contract(labels=dataset.labels, input_size=INPUT_SIZE)
    weights = "none" if contender == "scratch" else "imagenet"
    network, _ = build_network("squeezenet1_1", len(dataset.labels), weights, seed)
    started = time.monotonic()
    if contender == "tutorial":
        torch.manual_seed(seed)
        train_as_the_tutorial(network, dataset.examples(inside), contract)
        claim = np.nan
    else:
        split = split_by_session(inside, seed=seed)
        examples = dataset.examples(split.train), dataset.examples(split.validation)
        outcome = Learner(network, contract, *examples, seed=seed).learn(contender, budget=budget)
        network, contract = outcome.network, outcome.contract
        claim = (outcome.probabilities.argmax(1) == examples[1].class_ids.numpy()).mean()
    seconds = time.monotonic() - started
    model = InferenceModel(network.cpu(), contract)
    probabilities = predict(model, outside.frames, contract)
    class_ids = outside.class_ids.numpy()
    result = Result(
        accuracy=(probabilities.argmax(1) == class_ids).mean(),
        claim=claim,
        ECE=expected_calibration_error(probabilities, class_ids),
        seconds=seconds,
    )
    if unseen:
        known, strange = probabilities.max(1), predict(model, unseen, contract).max(1)
        result["kept"] = (known >= contract.unknown_threshold).mean()
        result["caught"] = (strange < contract.unknown_threshold).mean()
        result["caught at 95 %"] = (strange < np.quantile(known, 0.05)).mean()
    return result


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
