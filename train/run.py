"""Run a training from a dataset folder to a run folder with checkpoint.pt, metrics.json and report.html."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import torch

from teachcam.collect.dataset import Sample, list_samples
from teachcam.collect.left_out import describe_left_out, describe_similar_labels, describe_unportable_labels
from teachcam.collect.session_lines import describe_damage
from teachcam.collect.split import Split, folds_by_scene, split_at_random, split_by_scene, take_test_scenes
from teachcam.contract import Contract
from teachcam.errors import TrainingError
from teachcam.files import write_atomic
from teachcam.runs import STATE_FOLDER
from teachcam.train.config.run_config import RunConfig
from teachcam.train.config.train_config import FROM_RIDGE
from teachcam.train.data.dataset import Dataset
from teachcam.train.data.feature_cache import FOLDER
from teachcam.train.data.file_lists import read_lists
from teachcam.train.engine.context import Context
from teachcam.train.engine.distributed import init_distributed
from teachcam.train.engine.micro_batch import MicroBatcher
from teachcam.train.engine.progress import Progress, ProgressBar
from teachcam.train.engine.resume import TrainingState
from teachcam.train.engine.run_folder import begin_run, check_unchanged, lock_run
from teachcam.train.engine.selection import cross_validate, train_and_refit, train_from_ridge
from teachcam.train.engine.strategies import StrategyTrainer
from teachcam.train.engine.training_data import TrainingData, make_augmentation
from teachcam.train.model.backbones import SQRT, build_network, check_input_size, normalization
from teachcam.train.report.result import TrainingResult
from teachcam.train.report.summary import describe_memory, describe_split
from teachcam.train.report.write import write_results


def train(config: RunConfig, resume: bool = False) -> Path:
    """Train, validate and write a run. Results are printed on stdout, progress on stderr.

    Args:
        config: what to train, on which images, and where to write the run.
        resume: continue the interrupted run in `config.out`; see `load_interrupted_run`.

    Returns:
        The folder of the run.

    Raises:
        DatasetError: There is no dataset, or it can't be read.
        TrainingError: Training is not possible with these images or options; the text says what to change.
    """
    with _opencv_without_threads(), init_distributed(config.device) as (processes, device):
        out = processes.broadcast(config.out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3])
        config = replace(config, out=out)
        if out.resolve() == config.data.resolve():
            raise TrainingError(f"--out {out} is the dataset folder: give another one")
        state = TrainingState(out / STATE_FOLDER, processes)
        context = Context(device, processes, state=state, feature_folder=out.parent / FOLDER)
        dataset, listed_test = _read_dataset(config)
        splits, test = _split(dataset.samples, config)
        test += listed_test
        identity = {
            "images": dataset.fingerprint(),
            "split": _split_fingerprint(dataset, splits, test),
        }
        with lock_run(out) if processes.is_main_process else nullcontext():
            if processes.is_main_process and resume:
                check_unchanged(out, identity)
            elif processes.is_main_process:
                begin_run(config, identity)
            with ProgressBar(out) if processes.is_main_process else Progress() as context.progress:
                context.micro_batcher = MicroBatcher(context.progress.say, can_split=processes.count == 1)
                for line in (*dataset.left_out, *describe_split(splits, config), *describe_memory(config)):
                    context.progress.say(line)
                with _explained_interruption(context, out):
                    result = _train_splits(config, dataset, splits, test, identity["images"], context)
            lines = write_results(config, result, context) if processes.is_main_process else []
            context.state.clear()  # before printing, which fails if the reader of a pipe is gone
            for line in lines:
                print(line)
    return out


def show_augmentation(config: RunConfig, path: Path) -> None:
    """Write an image that shows the augmentation: each row has an original and augmented copies of it.

    Args:
        config: names the dataset and the augmentation.
        path: a file name that ends in .png or .jpg.
    """
    if not cv2.haveImageWriter(str(path)):
        raise TrainingError(f"--show-augment {path}: give a name that ends in .png or .jpg")
    dataset, _ = _read_dataset(config)
    augmentation = make_augmentation(dataset.examples(dataset.samples), config.augment)
    image = augmentation.preview(np.random.default_rng(config.seed))
    write_atomic(path, cv2.imencode(path.suffix, image)[1].tobytes())


def _read_dataset(config: RunConfig) -> tuple[Dataset, list[Sample]]:
    """Read the images. Returns the dataset without the samples of --test-list, and those."""
    if config.train_list is None:
        samples = list_samples(config.data)
        left_out = describe_left_out(config.data, config.labels)
        left_out += describe_similar_labels(config.data) + describe_unportable_labels(config.data)
        left_out += filter(None, [describe_damage(config.data)])
        if unknown := set(config.labels) - {sample.label for sample in samples}:
            reason = next((line for line in left_out if line.startswith(f"{min(unknown)} has no image")), "")
            raise TrainingError("--labels: " + (reason or f"there is no label {min(unknown)} in {config.data}"))
        samples = [sample for sample in samples if not config.labels or sample.label in config.labels]
        dataset = Dataset(config.data, samples, input_size=config.input_size)
        dataset.left_out = left_out
        return dataset, []
    train, test, labels = read_lists(config.train_list, config.test_list, config.data)
    dataset = Dataset(config.data, train + test, labels, config.input_size)
    if test and not (test := [sample for sample in test if sample.path in dataset.images]):
        raise TrainingError(f"--test-list {config.test_list}: none of its images can be read")
    test_paths = {sample.path for sample in test}
    dataset.samples = [sample for sample in dataset.samples if sample.path not in test_paths]
    return dataset, test


def _split(samples: list[Sample], config: RunConfig) -> tuple[list[Split], list[Sample]]:
    """Return one split, or one for each fold, and the samples of the test scenes."""
    test: list[Sample] = []
    if config.test:
        try:
            samples, test = take_test_scenes(samples, list(config.test), config.seed)
        except ValueError as error:
            raise TrainingError(f"--test: {error}") from None
    if config.strategy in FROM_RIDGE:
        return [Split(samples, [])], test
    if config.split == "frames":
        return [split_at_random(samples, config.validation_fraction, config.seed)], test
    if not config.folds:
        return [split_by_scene(samples, config.validation_fraction, config.seed)], test
    splits = folds_by_scene(samples, config.folds, config.seed)
    if len(splits) < 2:
        raise TrainingError(
            f"--folds {config.folds}: too few scenes for cross-validation; record each label in more places, or leave "
            "--folds out"
        )
    return splits, test


def _split_fingerprint(dataset: Dataset, splits: list[Split], test: list[Sample]) -> str:
    """Return a hash of which files are for training, validation and test."""
    parts = [part for split in splits for part in (split.train, split.validation)]
    names = [[f"{sample.label} {dataset.relative_path(sample)}" for sample in part] for part in (*parts, test)]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


@contextmanager
def _opencv_without_threads() -> Iterator[None]:
    """Leave the cores to the network. With OpenCV's threads, an augmentation took 72 ms on a busy machine, not 4."""
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(num_threads)


@contextmanager
def _explained_interruption(context: Context, out: Path) -> Iterator[None]:
    """Tell how to continue after Ctrl-C, and turn a GPU out of memory into a TrainingError."""
    try:
        yield
    except KeyboardInterrupt:
        context.progress.say(f"interrupted; to continue: teachcam train --resume {out}")
        raise
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise TrainingError("batch norm can't learn from one image at a time: give a larger --batch-size") from None
    except torch.OutOfMemoryError:
        raise TrainingError("out of memory: give a smaller --batch-size or --image-size, or --device cpu") from None


def _train_splits(
    config: RunConfig, dataset: Dataset, splits: list[Split], test: list[Sample], images: str, context: Context
) -> TrainingResult:
    """Train and validate on each split, then on all images. `images` is their fingerprint."""
    started = time.monotonic()
    labels = dataset.labels
    from_ridge = config.strategy in FROM_RIDGE
    head = SQRT if from_ridge else config.head
    network, initial_weights = build_network(config.backbone, len(labels), config.weights, config.seed, head)
    check_input_size(network, config.backbone, config.input_size)
    color_order = "GRAY" if config.grayscale else "RGB"
    mean, std = normalization(config.backbone)
    contract = Contract(labels, config.input_size, color_order, mean=mean, std=std)
    if from_ridge:
        (everything,) = splits
        outcome, splits = train_from_ridge(network, contract, dataset, everything.train, config, context)
        seconds = time.monotonic() - started
        return TrainingResult(dataset, images, splits, test, outcome, initial_weights, None, seconds)
    trainers = [
        StrategyTrainer(
            TrainingData(
                network,
                contract,
                dataset.examples(split.train),
                dataset.examples(split.validation),
                context,
                config.augment,
            ),
            config.seed,
            name=f"fold{number}-" if len(splits) > 1 else "",
        )
        for number, split in enumerate(splits, 1)
    ]
    if len(trainers) == 1:
        outcome = train_and_refit(trainers[0], config.strategy, config.overrides, config.refit)
    else:
        outcome = cross_validate(trainers, config.strategy, config.overrides)
    head_accuracies = _compare_splits(trainers[0], splits[0], config.seed) if config.split == "frames" else None
    seconds = time.monotonic() - started
    return TrainingResult(dataset, images, splits, test, outcome, initial_weights, head_accuracies, seconds)


def _compare_splits(trainer: StrategyTrainer, random_split: Split, seed: int) -> list[float] | None:
    """Return the accuracy of a head alone on random validation images, and on whole validation scenes.

    None if no scene can be spared for validation.
    """
    samples = random_split.train + random_split.validation
    scene_split = split_by_scene(samples, seed=seed)
    if not scene_split.validation_scenes:
        return None
    accuracies = []
    for split in (random_split, scene_split):
        train, validation = set(split.train), set(split.validation)
        masks = [sample in train for sample in samples], [sample in validation for sample in samples]
        accuracies.append(trainer.head_accuracy(*masks))
    return accuracies
