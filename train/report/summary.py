"""Summarize a run in a few lines of text: the split before training, the accuracy after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from teachcam.collect.dataset import describe_guessed_sessions
from teachcam.collect.split import Split
from teachcam.processor import free_memory
from teachcam.train.engine.result import Result
from teachcam.train.metrics import Metrics, confidence_interval

if TYPE_CHECKING:
    from teachcam.train.run_config import RunConfig


def describe_memory(config: RunConfig) -> Iterator[str]:
    """Yield a line if the free memory may not be enough to train. The system then ends the program without a word."""
    free, needed = free_memory(), config.method.needed_memory
    if free is not None and free < needed:
        less = ", or give --strategy ridge" if config.method.settings else ""
        yield (
            f"warning: {free / 1e9:.1f} GB of memory are free, and this may take {needed / 1e9:.1f} GB: "
            f"close other programs, add swap space{less}"
        )


def describe_split(folds: list[Split], config: RunConfig) -> Iterator[str]:
    """Yield lines about the split: the images to train on, and those for validation.

    Args:
        folds: Folds to evaluate on, one or more.
        config: Options of the run.
    """
    split = folds[0]
    num_training, num_validation = len(split.train), len(split.validation)
    everything = [*split.train, *split.validation]
    if config.method.evaluates_all:
        if guess := describe_guessed_sessions(everything):
            yield guess
        yield f"training on {len(everything)} images of {_scenes(len({sample.scene for sample in everything}))}"
        return
    if config.split == "frames":
        several = len({sample.session for sample in split.train}) > 1
        neighbors = ", neighbors of the training images" if several else ""
        yield f"training on {num_training} images; validation: {num_validation} random images{neighbors}"
        return
    if guess := describe_guessed_sessions(everything):
        yield guess
    if len(folds) > 1:
        yield f"cross-validation: {len(folds)} folds of whole scenes"
        return
    training = _scenes(len({sample.scene for sample in split.train}))
    which, others = ("including", "whole") if split.labels_split_by_time else ("of", "other")
    validation = f"{num_validation} images {which} {_scenes(len(split.validation_scenes), others + ' ')}"
    yield f"training on {num_training} images of {training}; validation: {validation}"
    if split.labels_split_by_time:
        labels = ", ".join(split.labels_split_by_time)
        yield f"too few scenes to keep one for validation of {labels}: record in other places, too"


def describe_results(result: Result, metrics: Metrics) -> Iterator[str]:
    """Yield lines that say how accurate the model is on the validation images, and on the test images if there are any.

    Args:
        result: Result of the run.
        metrics: Metrics of the same run.
    """
    yield from describe_accuracy(result.predictions.correct, result.folds, metrics.split)
    if result.head_accuracies:
        at_random, by_scene = result.head_accuracies
        yield (
            f"for comparison: a head alone is {at_random:.3f} accurate on random images and {by_scene:.3f} on whole "
            "scenes; in another place expect the latter"
        )
    if metrics.test and metrics.test.confidence_interval:
        (low, high), scenes = metrics.test.confidence_interval, ""
        if metrics.split == "scenes" and not metrics.config["test_list"]:
            scenes = f" of {_scenes(len(metrics.test.scenes), 'test ')}"
        yield (
            f"test: accuracy {metrics.test.accuracy:.3f} ({low:.2f} to {high:.2f}) on {metrics.test.num_images} "
            f"images{scenes}"
        )


def describe_accuracy(correct: np.ndarray, splits: list[Split], mode: str) -> Iterator[str]:
    """Yield lines that say how accurate the model is on the validation images of all splits.

    Whole scenes are reported apart from images of scenes that were trained on, whose accuracy is optimistic.

    Args:
        correct: Whether the prediction for each validation image is correct, bool [N], in the order of the splits.
        splits: Splits: one, or one for each fold.
        mode: Kind of split: scenes or frames, as `--split` has it.
    """
    if not len(correct):
        yield "accuracy: not measured, there are too few images for validation"
        return
    if mode == "frames":
        low, high = confidence_interval(correct, [str(index) for index in range(len(correct))])
        yield f"accuracy {correct.mean():.3f} ({low:.2f} to {high:.2f}) on {len(correct)} random validation images"
        return
    scenes = {scene for split in splits for scene in split.validation_scenes}
    scenes_of_images = [sample.scene for split in splits for sample in split.validation]
    whole = np.array([scene in scenes for scene in scenes_of_images], bool)
    if whole.any():
        low, high = confidence_interval(correct[whole], [scene for scene in scenes_of_images if scene in scenes])
        unseen = "that training never saw" if len(splits) == 1 else "each evaluated by a model that never saw it"
        yield (
            f"accuracy {correct[whole].mean():.3f} ({low:.2f} to {high:.2f}) on {whole.sum()} images of "
            f"{_scenes(len(scenes))}{',' * (len(splits) > 1)} {unseen}"
        )
    if not whole.all():
        which = "later " if len(splits) == 1 else ""  # one split takes the last images, several take each image once
        yield (
            f"accuracy {correct[~whole].mean():.3f} on {_images((~whole).sum(), which)} of scenes that training "
            f"saw ({', '.join(splits[0].labels_split_by_time)}): optimistic, it says little about another place"
        )


def _images(count: int, kind: str = "") -> str:
    return f"{count} {kind}image{'' if count == 1 else 's'}"


def _scenes(count: int, which: str = "") -> str:
    return f"{count} {which}scene{'s' * (count != 1)}"
