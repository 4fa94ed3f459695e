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
from teachcam.collect.split import take_test_scenes
from teachcam.errors import TrainingError
from teachcam.files import parse_json, write_atomic
from teachcam.runs import CONFIG_FILE, STATE_FOLDER, interrupted_runs
from teachcam.train.data.dataset import Dataset
from teachcam.train.data.file_lists import read_lists
from teachcam.train.engine.context import Context
from teachcam.train.engine.distributed import init_distributed
from teachcam.train.engine.micro_batch import MicroBatcher
from teachcam.train.engine.progress import Progress, ProgressBar
from teachcam.train.engine.resume import TrainingState
from teachcam.train.engine.run_folder import begin_run, continue_run, lock_run
from teachcam.train.engine.training_data import TrainingData, make_augmentation
from teachcam.train.report.summary import describe_memory, describe_split
from teachcam.train.report.write import write_results
from teachcam.train.run_config import RunConfig

FEATURE_STORE = ".features.sqlite"  # beside the runs


def train(config: RunConfig, resume: bool = False) -> Path:
    """Train, validate and write a run. Results are printed on stdout, progress on stderr.

    Args:
        config: Options of the run: what to train, on which images, and where to write the run.
        resume: Whether to continue the interrupted run in `config.out`; see `load_interrupted_run`.

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
        context = Context(device, processes, state=state, feature_store=out.parent / FEATURE_STORE)
        dataset, test = _read_dataset(config)
        folds = config.method.folds(dataset.samples, config)
        identity = {"images": dataset.fingerprint(), "split": _split_fingerprint(dataset, test)}
        with lock_run(out) if processes.is_main_process else nullcontext():
            lines: list[str] = []
            if processes.is_main_process and resume:
                lines += continue_run(out, config, identity)
            elif processes.is_main_process:
                begin_run(out, config, identity)
            with ProgressBar(out) if processes.is_main_process else Progress() as context.progress:
                context.micro_batcher = MicroBatcher(context.progress.say, can_split=processes.count == 1)
                lines += [*dataset.left_out, *describe_split(folds, config), *describe_memory(config)]
                for line in lines:
                    context.progress.say(line)
                started = time.monotonic()
                with _explained_interruption(context, out):
                    data = TrainingData(config, dataset, test=test)
                    result = config.method.fit(data, folds, context)
                seconds = time.monotonic() - started
            lines = write_results(out, result, context, seconds) if processes.is_main_process else []
            context.state.clear()  # before printing, which fails if the reader of a pipe is gone
            for line in lines:
                print(line)
    return out


def load_interrupted_run(run: Path | None = None) -> RunConfig:
    """Return the options of an interrupted run, to continue with `train(config, resume=True)`.

    Args:
        run: Folder of the run; None for the newest interrupted run in runs/.

    Raises:
        TrainingError: There is no such run, it is finished, or its options can't be read.
    """
    if run is None:
        runs = interrupted_runs()
        if not runs:
            raise TrainingError("--resume: no run in runs/ was interrupted")
        run = runs[-1]
    path = run / STATE_FOLDER / CONFIG_FILE
    try:
        return replace(RunConfig.from_json(parse_json(path.read_text())["config"]), out=run)
    except FileNotFoundError:
        reason = "the run is finished" if (run / "metrics.json").exists() else "there is no run"
        raise TrainingError(f"--resume {run}: {reason}") from None
    except (ValueError, KeyError, TypeError, TrainingError):
        raise TrainingError(f"--resume {run}: {path} is damaged; start the training again") from None


def show_augmentation(config: RunConfig, path: Path) -> None:
    """Write an image that shows the augmentation: each row has an original and augmented copies of it.

    Args:
        config: Options of the run, which name the dataset and the augmentation.
        path: Name of the file, which ends in .png or .jpg.
    """
    if not cv2.haveImageWriter(str(path)):
        raise TrainingError(f"--show-augment {path}: give a name that ends in .png or .jpg")
    dataset, _ = _read_dataset(config)
    augmentation = make_augmentation(dataset.examples(dataset.samples), dataset.labels, config.augment)
    image = augmentation.preview(np.random.default_rng(config.seed))
    write_atomic(path, cv2.imencode(path.suffix, image)[1].tobytes())


def _read_dataset(config: RunConfig) -> tuple[Dataset, list[Sample]]:
    """Read the images. Returns the dataset, whose samples are those to train on, and the samples for the final test."""
    if config.train_list is not None:
        train, test, labels = read_lists(config.train_list, config.test_list, config.data)
        dataset = Dataset(config.data, train + test, labels, config.input_size)
        if test and not (test := [sample for sample in test if sample.path in dataset.images]):
            raise TrainingError(f"--test-list {config.test_list}: none of its images can be read")
        test_paths = {sample.path for sample in test}
        dataset.samples = [sample for sample in dataset.samples if sample.path not in test_paths]
    else:
        samples, test = list_samples(config.data), []
        left_out = describe_left_out(config.data, config.labels)
        left_out += describe_similar_labels(config.data) + describe_unportable_labels(config.data)
        left_out += filter(None, [describe_damage(config.data)])
        if unknown := set(config.labels) - {sample.label for sample in samples}:
            reason = next((line for line in left_out if line.startswith(f"{min(unknown)} has no image")), "")
            raise TrainingError("--labels: " + (reason or f"there is no label {min(unknown)} in {config.data}"))
        samples = [sample for sample in samples if not config.labels or sample.label in config.labels]
        dataset = Dataset(config.data, samples, input_size=config.input_size)
        dataset.left_out = left_out
    if config.test:
        try:
            dataset.samples, test_scenes = take_test_scenes(dataset.samples, list(config.test), config.seed)
        except ValueError as error:
            raise TrainingError(f"--test: {error}") from None
        test = test_scenes + test
    return dataset, test


def _split_fingerprint(dataset: Dataset, test: list[Sample]) -> str:
    """Return a hash of which files are for training and validation, and which for the test."""
    parts = (dataset.samples, test)
    names = [[f"{sample.label} {dataset.relative_path(sample)}" for sample in part] for part in parts]
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
