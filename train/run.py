"""One training run, from a dataset's folder to a folder of its own: checkpoint.pt, metrics.json and report.html.

While it runs, its folder holds `.state/` too: what it was asked, and where it goes on after an interruption.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import torch

from teachcam.collect.dataset import Sample, fingerprint, read_items
from teachcam.contract import Contract
from teachcam.errors import TrainingError
from teachcam.files import write_atomic
from teachcam.train.config import RunConfig
from teachcam.train.data.dataset import Dataset
from teachcam.train.data.file_lists import read_lists
from teachcam.train.data.split import Split, folds_by_session, split_by_session, split_frames, take_sessions
from teachcam.train.engine.context import Context
from teachcam.train.engine.distributed import init_distributed
from teachcam.train.engine.micro_batch import MicroBatcher
from teachcam.train.engine.progress import Progress, ProgressBar
from teachcam.train.engine.resume import TrainingState
from teachcam.train.engine.strategies import Learner, augmentation_of, cross_validate
from teachcam.train.model.backbones import build_network, check_backbone, check_size
from teachcam.train.report import summary as claims
from teachcam.train.report.result import TrainingResult
from teachcam.train.report.write import write_results

STATE = ".state"  # hidden: no label's folder, whatever --out is

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def train(options: RunConfig, resumed: bool = False) -> Path:
    """Train, measure on held-out sessions, and leave a run behind; return its folder.

    A `resumed` run goes on from where its folder says that it was interrupted. Results go to stdout, progress to
    stderr. Raises TrainingError or DatasetError.
    """
    check_backbone(options.backbone)
    with init_distributed(options.device) as (workers, device):
        out = workers.broadcast(options.out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3])
        options = replace(options, out=out)
        context = Context(device, workers, journal=TrainingState(out / STATE, workers))
        dataset, given_test = _dataset(options)
        splits, test = _splits(dataset.items, options)
        if out.resolve() == options.data.resolve():
            raise TrainingError(f"--out {out}: that is the dataset; give a folder of its own")
        pictures = fingerprint(dataset.items + given_test)
        promise = {"pictures": pictures, "split": _names(dataset, splits, test + given_test)}
        with _alone_in(out) if workers.is_main_process else nullcontext():
            if workers.is_main_process and resumed:
                _check_unchanged(out, promise)
            elif workers.is_main_process:
                _begin(options, promise)
            with ProgressBar(out) if workers.is_main_process else Progress() as context.progress:
                context.memory = MicroBatcher(context.progress.say, splits=workers.count == 1)
                for line in claims.before(splits, options.split):
                    context.progress.say(line)
                try:
                    evidence = _learn(options, dataset, splits, test + given_test, pictures, context)
                except KeyboardInterrupt:
                    context.progress.say(f"interrupted: python train/finetune.py --resume {out} goes on")
                    raise
                except torch.OutOfMemoryError:
                    raise TrainingError("out of memory: give a smaller --batch or --size, or --device cpu") from None
            lines = write_results(options, evidence, context) if workers.is_main_process else []
            context.journal.clear()  # before anything is said: whoever listens may be gone
            for line in lines:
                print(line)
    return out


def unfinished(run: Path | None) -> RunConfig:
    """Return the options of a run that was interrupted: the newest in runs/ unless one is named."""
    if run is None:
        found = sorted(Path("runs").glob(f"*/{STATE}/options.json"), key=lambda path: path.stat().st_mtime)
        found = [path for path in found if not path.parent.parent.is_symlink()]
        if not found:
            raise TrainingError("--resume: no run in runs/ was interrupted")
        run = found[-1].parent.parent
    try:
        asked = json.loads((run / STATE / "options.json").read_text())["options"]
        return replace(RunConfig.from_json(asked), out=run)
    except FileNotFoundError:
        finished = (run / "metrics.json").exists()
        raise TrainingError(f"--resume {run}: {'it is finished' if finished else 'there is no run'}") from None
    except (ValueError, KeyError, TypeError):
        raise TrainingError(f"--resume {run}: its {STATE}/options.json is damaged; train it again") from None


def _dataset(options: RunConfig) -> tuple[Dataset, list[Sample]]:
    """Read the frames; of given lists, all, and return the test's items too."""
    if options.train_list is None:
        items = read_items(options.data)
        if unknown := set(options.labels) - {item.label for item in items}:
            raise TrainingError(f"--labels: there is no {min(unknown)} in {options.data}")
        items = [item for item in items if not options.labels or item.label in options.labels]
        return Dataset(options.data, items, size=options.input_size), []
    learned, test, labels = read_lists(options.train_list, options.test_list, options.data)
    dataset = Dataset(options.data, learned + test, labels, options.input_size)
    if test and not (test := [item for item in test if item.path in dataset.frames]):
        raise TrainingError(f"--test-list {options.test_list}: none of its pictures can be read")
    of_test = {item.path for item in test}
    dataset.items = [item for item in dataset.items if item.path not in of_test]
    return dataset, test


def _splits(items: list[Sample], options: RunConfig) -> tuple[list[Split], list[Sample]]:
    """Return the split, or one for each fold, and what is kept for the test."""
    test: list[Sample] = []
    if options.test:
        try:
            items, test = take_sessions(items, list(options.test), options.seed)
        except ValueError as error:
            raise TrainingError(f"--test: {error}") from None
    if options.split == "frames":
        return [split_frames(items, options.validation, options.seed)], test
    if not options.folds:
        return [split_by_session(items, options.validation, options.seed)], test
    splits = folds_by_session(items, options.folds, options.seed)
    if len(splits) < 2:
        raise TrainingError(f"--folds {options.folds}: too few sessions of every label; record more, or leave it out")
    return splits, test


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Make a run's folder, and keep other processes from training into it; TrainingError if one does."""
    out.mkdir(parents=True, exist_ok=True)  # now: one that can't be made is no surprise after training
    if fcntl is None:
        yield
        return
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise TrainingError(f"{out}: another process is training into it; wait for it, or give another --out") from None
    finally:
        os.close(folder)


def _names(dataset: Dataset, splits: list[Split], test: list[Sample]) -> str:
    """Return a hash of which frames are learned from, held out and tested on."""
    parts = [part for split in splits for part in (split.train, split.validation)]
    names = [[f"{item.label} {dataset.name(item)}" for item in part] for part in (*parts, test)]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


def _begin(options: RunConfig, promise: dict) -> None:
    """Note what was asked, in place of an earlier run of that name. Raises TrainingError if one was interrupted."""
    state = options.out / STATE
    if (state / "options.json").exists():
        raise TrainingError(
            f"--out {options.out}: a run was interrupted there: go on with it by --resume {options.out}, "
            f"or delete {state}"
        )
    shutil.rmtree(state, ignore_errors=True)
    for old in (options.out / "epochs.jsonl", *options.out.glob("events.out.tfevents.*")):
        old.unlink(missing_ok=True)
    state.mkdir()
    paths = {name: getattr(options, name) for name in ("data", "train_list", "test_list")}
    absolute = {name: path.resolve() for name, path in paths.items() if path}
    if options.weights not in ("imagenet", "none"):
        absolute["weights"] = str(Path(options.weights).resolve())
    asked = {"options": replace(options, **absolute).to_json(), **promise}
    write_atomic(state / "options.json", json.dumps(asked, indent=1).encode())


def _check_unchanged(out: Path, promise: dict) -> None:
    begun = json.loads((out / STATE / "options.json").read_text())
    if any(begun.get(name) != value for name, value in promise.items()):
        raise TrainingError(f"--resume {out}: the dataset has changed since; train a new run")


def _learn(
    options: RunConfig, dataset: Dataset, splits: list[Split], test: list[Sample], pictures: str, context: Context
) -> TrainingResult:
    """Train as the options say; return what came of it."""
    started = time.monotonic()
    labels = dataset.labels
    network, source = build_network(options.backbone, len(labels), options.weights, options.seed, options.head)
    check_size(network, options.backbone, options.input_size)
    color = "GRAY" if options.grayscale else "RGB"
    contract = Contract(labels=labels, input_size=options.input_size, color_order=color)
    learners = [
        Learner(
            network,
            contract,
            dataset.examples(split.train),
            dataset.examples(split.validation),
            context,
            options.seed,
            options.augment,
            f"fold{number}-" if len(splits) > 1 else "",
        )
        for number, split in enumerate(splits, 1)
    ]
    if len(learners) == 1:
        outcome = learners[0].learn(options.strategy, options.changes, options.budget, options.refit)
    else:
        outcome = cross_validate(learners, options.strategy, options.changes, options.budget)
    worth = None
    by_session = split_by_session(splits[0].train + splits[0].validation, seed=options.seed)
    if options.split == "frames" and by_session.validation_sessions:  # else there is nothing to compare with
        worth = _head_both_ways(learners[0], splits[0], by_session)
    return TrainingResult(dataset, pictures, splits, test, outcome, source, worth, time.monotonic() - started)


def _head_both_ways(learner: Learner, by_frames: Split, by_session: Split) -> list[float]:
    """Return the accuracy of a head alone on this split's held-out frames, and on sessions held out whole."""
    items = by_frames.train + by_frames.validation
    parts = []
    for way in (by_frames, by_session):
        train, validation = set(way.train), set(way.validation)
        parts.append(learner.head_accuracy([item in train for item in items], [item in validation for item in items]))
    return parts


def show_augmentation(options: RunConfig, path: Path) -> None:
    """Write a picture of what training sees: a row for each of a few frames, itself first, then as it was changed."""
    if not cv2.haveImageWriter(str(path)):
        raise TrainingError(f"--show-augment {path}: give a name that ends in .png or .jpg")
    dataset, _ = _dataset(options)
    picture = augmentation_of(dataset.examples(dataset.items), options.augment)
    picture = picture.picture(np.random.default_rng(options.seed))
    write_atomic(path, cv2.imencode(path.suffix, picture)[1].tobytes())
