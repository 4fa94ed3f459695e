"""One training run, from a dataset's folder to a folder of its own: checkpoint.pt, metrics.json and report.html."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision
from tqdm import tqdm

from collect.dataset import Item, fingerprint, write_atomic
from train import claims
from train.backbones import INPUT_SIZE, Deployed, build_network, check_backbone
from train.calibrate import expected_calibration_error
from train.checkpoint import Checkpoint, save_checkpoint
from train.contract import Contract
from train.evaluate import predict, score
from train.examples import Dataset
from train.report import write_report
from train.split import Split, folds_by_session, split_by_session, split_frames, take_sessions
from train.strategies import BUDGET, Learner, augmentation_of, cross_validate
from train.weights import TrainingError


@dataclass(frozen=True)
class Options:
    """What a run is asked to do."""

    data: Path = Path("data")
    out: Path | None = None  # runs/<time>
    backbone: str = "squeezenet1_1"
    weights: str = "imagenet"
    strategy: str = "auto"
    changes: dict = field(default_factory=dict)  # settings in place of the strategy's own
    budget: float = BUDGET  # seconds, for `auto`
    split: str = "session"  # or frames
    folds: int | None = None  # cross-validation instead of one split
    test: tuple[str, ...] = ()  # sessions, or a fraction, that nothing is chosen by
    refit: bool = True
    device: str = "auto"
    seed: int = 0


def train(options: Options) -> Path:
    """Train, measure on held-out sessions, and leave a run behind; return its folder.

    Results go to stdout, progress to stderr. Raises TrainingError or DatasetError.
    """
    started = time.monotonic()
    check_backbone(options.backbone)
    device = _device(options.device)
    dataset = Dataset(options.data)
    splits, test = _splits(dataset.items, options)
    for line in claims.before(splits, options.split):
        _say(line)
    out = options.out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
    out.mkdir(parents=True, exist_ok=True)  # now: a folder that can't be made is no surprise after training

    network, source = build_network(options.backbone, len(dataset.labels), options.weights, options.seed)
    contract = Contract(labels=dataset.labels, input_size=INPUT_SIZE)
    with _Bar() as bar:
        learners = [
            Learner(
                network,
                contract,
                dataset.examples(split.train),
                dataset.examples(split.held_out),
                device,
                options.seed,
                _say,
                bar.on_epoch,
            )
            for split in splits
        ]
        if len(learners) == 1:
            outcome = learners[0].learn(options.strategy, options.changes, options.budget, options.refit)
        else:
            outcome = cross_validate(learners, options.strategy, options.changes, options.budget)

    held_out = [item for split in splits for item in split.held_out]
    figures = _figures(outcome.probabilities, held_out, dataset.labels)
    trained_on = {
        "backbone": options.backbone,
        "dataset": fingerprint(dataset.items),
        "held_out_accuracy": figures["accuracy"],
        "held_out_frames": figures["frames"],
        "optimistic": bool(splits[0].cut_labels) or options.split == "frames",
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
        },
    }
    contract = replace(outcome.contract, trained_on=trained_on)
    network = outcome.network.cpu().eval()
    tested = None
    if test:
        probabilities = predict(Deployed(network, contract), dataset.examples(test).frames, contract)
        tested = _figures(probabilities, test, dataset.labels)
    metrics = {
        "labels": list(dataset.labels),
        "backbone": options.backbone,
        "strategy": outcome.strategy,
        "tried": outcome.tried,
        "options": asdict(replace(options, data=str(options.data), out=str(out))),
        "weights": source,
        "device": str(device),
        "seed": options.seed,
        "frames": len(splits[0].train) + (len(splits[0].held_out) if options.refit or options.folds else 0),
        "seconds": round(time.monotonic() - started, 2),
        "skipped": dataset.skipped,
        "split": options.split,
        "folds": len(splits),
        "held_out": figures,
        "held_out_sessions": sorted({session for split in splits for session in split.held_out_sessions}),
        "held_out_learned_later": options.refit or len(splits) > 1,
        "test": tested,
        "cut_labels": list(splits[0].cut_labels),
        "temperature": contract.temperature,
        "unknown_threshold": contract.unknown_threshold,
        "epochs": outcome.history,
    }
    others = set(held_out)
    checkpoint = Checkpoint(
        network,
        contract,
        str(options.data.resolve()),
        [f"{item.label}/{item.path.name}" for item in held_out],
        [f"{item.label}/{item.path.name}" for item in splits[0].train if item not in others],
    )
    save_checkpoint(out / "checkpoint.pt", checkpoint)
    write_atomic(out / "metrics.json", json.dumps(metrics, indent=1).encode())
    mistakes = _worst_mistakes(outcome.probabilities, held_out, dataset.frames, dataset.labels)
    write_report(out / "report.html", metrics, mistakes)
    _point_latest_at(out)
    right = outcome.probabilities.argmax(1) == [dataset.labels.index(item.label) for item in held_out]
    for line in claims.after(right, splits, options.split):
        print(line)
    if options.split == "frames":
        print(claims.worth(*_head_both_ways(learners[0], splits[0], options.seed)))
    if tested:
        print(
            f"accuracy {tested['accuracy']:.3f} on {tested['frames']} frames of {len(tested['sessions'])} test sessions"
        )
    print(f"{out / 'checkpoint.pt'}, {metrics['seconds']} s; the report: {out / 'report.html'}")
    return out


def _splits(items: list[Item], options: Options) -> tuple[list[Split], list[Item]]:
    """Return the split, or one for each fold, and what is kept for the test."""
    test: list[Item] = []
    if options.test:
        try:
            items, test = take_sessions(items, list(options.test), options.seed)
        except ValueError as error:
            raise TrainingError(f"--test: {error}") from None
    if options.split == "frames":
        return [split_frames(items, seed=options.seed)], test
    if not options.folds:
        return [split_by_session(items, seed=options.seed)], test
    splits = folds_by_session(items, options.folds, options.seed)
    if len(splits) < 2:
        raise TrainingError(f"--folds {options.folds}: too few sessions of every label; record more, or leave it out")
    return splits, test


def show_augmentation(options: Options, path: Path) -> None:
    """Write a picture of what training sees: a row for each of a few frames, itself first, then as it was changed."""
    if not cv2.haveImageWriter(str(path)):
        raise TrainingError(f"--show-augment {path}: give a name that ends in .png or .jpg")
    dataset = Dataset(options.data)
    picture = augmentation_of(dataset.examples(dataset.items)).picture(np.random.default_rng(options.seed))
    write_atomic(path, cv2.imencode(path.suffix, picture)[1].tobytes())


class _Bar:
    """A progress bar on stderr, one for each strategy that is tried."""

    def __enter__(self) -> _Bar:
        self._bar, self._name = None, None
        return self

    def on_epoch(self, strategy: str, epochs: int, line: dict) -> None:
        if strategy != self._name:
            self.__exit__()
            self._name, self._bar = strategy, tqdm(total=epochs, desc=strategy, unit="epoch", disable=None)
        accuracy = line["held_out_accuracy"]
        self._bar.set_postfix_str(
            f"loss {line['loss']:.3f}" + (f", held-out {accuracy:.3f}" if accuracy is not None else "")
        )
        self._bar.update()

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: torch finds no CUDA device here; give auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _figures(probabilities: np.ndarray, items: list[Item], labels: tuple[str, ...]) -> dict:
    class_ids = np.array([labels.index(item.label) for item in items], int)
    return {
        **score(probabilities, class_ids, labels),
        "ece": expected_calibration_error(probabilities, class_ids) if items else None,
        "sessions": sorted({item.session for item in items}),
    }


def _head_both_ways(learner: Learner, split: Split, seed: int) -> list[float]:
    """Return the accuracy of a head alone on this split's held-out frames, and on sessions held out whole."""
    items = split.train + split.held_out
    parts = []
    for way in (split, split_by_session(items, seed=seed)):
        train, held_out = set(way.train), set(way.held_out)
        parts.append(learner.head_accuracy([item in train for item in items], [item in held_out for item in items]))
    return parts


def _worst_mistakes(probabilities, items: list[Item], frames: dict, labels: tuple[str, ...], most: int = 12):
    """The held-out frames that were answered wrongly, the surest first."""
    answers = probabilities.argmax(1) if len(items) else []
    wrong = [
        {
            "frame": frames[item.path],
            "true": item.label,
            "answer": labels[answer],
            "confidence": float(row[answer]),
            "file": f"{item.label}/{item.path.name}",
        }
        for item, row, answer in zip(items, probabilities, answers, strict=True)
        if labels[answer] != item.label
    ]
    return sorted(wrong, key=lambda mistake: -mistake["confidence"])[:most]


def _point_latest_at(out: Path) -> None:
    """Make runs/latest a link to this run, in one step, so that there is always a latest one."""
    latest = Path("runs/latest")
    beside = latest.with_name(f".latest.{os.getpid()}")
    try:
        latest.parent.mkdir(exist_ok=True)
        beside.symlink_to(os.path.relpath(out.resolve(), latest.parent.resolve()), target_is_directory=True)
        beside.replace(latest)
    except OSError as error:
        print(f"runs/latest still points elsewhere ({error.strerror}): name the run's files", file=sys.stderr)
