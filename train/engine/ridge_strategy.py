"""The strategy `ridge`: a closed-form head on the frozen backbone's features of the images and augmented views.

There is no separate validation set. Each image is judged by a head that never saw its scene, so all images serve both
for training and for validation, and nothing has to be trained twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import nn

from teachcam.collect.dataset import Sample
from teachcam.contract import Contract
from teachcam.errors import TrainingError
from teachcam.ridge import Rows, fit_ridge
from teachcam.train.augment.cpu import Augmentation
from teachcam.train.augment.params import AugmentParams
from teachcam.train.augment.scenes import find_scenes, has_several_labels, shrink_for_scenes
from teachcam.train.calibration import calibrate
from teachcam.train.config import RIDGE
from teachcam.train.data.dataset import Dataset
from teachcam.train.data.split import Split
from teachcam.train.engine.context import Context
from teachcam.train.engine.features import extract_features
from teachcam.train.engine.strategies import StrategyResult
from teachcam.train.engine.training_data import make_augmentation
from teachcam.train.model.backbones import Network

NUM_VIEWS = 4  # augmented copies of each image; in new rooms more gained nothing


def train_ridge(
    network: Network,
    contract: Contract,
    dataset: Dataset,
    samples: list[Sample],
    context: Context,
    augment: str = "room",
    seed: int = 0,
) -> tuple[StrategyResult, list[Split]]:
    """Fit the head of a network.

    Args:
        network: has a `sqrt` head, which is changed; its backbone is not.
        contract: labels, input size and normalization.
        dataset: holds the images.
        samples: what to train on.
        context: what the training runs with.
        augment: kind of augmentation: room, light or none. With `none` there are no views.
        seed: of the views.

    Returns:
        The result, and one split for each scene that was left out. The result's logits are of the validation samples
        of all splits, in their order. Scenes without which a label would have no image are never left out.
    """
    examples = dataset.examples(samples)
    class_ids = examples.class_ids.numpy()
    num_classes = len(contract.labels)
    if missing := set(range(num_classes)) - set(class_ids):
        raise TrainingError(f"no image of {contract.labels[min(missing)]} is left to train on: leave --test out")
    scenes = find_scenes(shrink_for_scenes(examples.images), class_ids, examples.sessions)
    scene_of = np.empty(len(samples), int)
    for number, members in enumerate(scenes):
        scene_of[members] = number
    views = _Views(make_augmentation(examples, augment), seed, 0 if augment == "none" else NUM_VIEWS)
    # The augmentation knows the backgrounds of the scenes with several labels, in this order.
    background_scenes = [number for number, scene in enumerate(scenes) if has_several_labels(scene, class_ids)]
    backgrounds = [background_scenes[index] if index >= 0 else -1 for index in views.backgrounds]

    features = extract_features(network, [*examples.images], contract, context)
    view_features = extract_features(network, views, contract, context)
    repeats = 1 + views.num_views
    rows = Rows(
        features=torch.cat([features, view_features]).cpu().numpy(),
        class_ids=np.tile(class_ids, repeats),
        scenes=np.tile(scene_of, repeats),
        backgrounds=np.array([-1] * len(samples) + backgrounds),
        is_view=np.arange(repeats * len(samples)) >= len(samples),
    )
    head = fit_ridge(rows, num_classes)
    linear = cast(nn.Linear, network.head.get_submodule("1"))
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(head.weight.T))
        linear.bias.copy_(torch.from_numpy(head.bias))

    left_out = [scene for scene in scenes if _keeps_every_label(scene, class_ids, num_classes)]
    if head.held_out_logits is None:
        left_out = []
    order = np.concatenate([*left_out, np.empty(0, int)]).astype(int)
    logits = np.zeros((0, num_classes)) if head.held_out_logits is None else head.held_out_logits[order]
    contract, probabilities = calibrate(contract, logits.astype(np.float32), class_ids[order], has_outliers=False)
    splits = [_split(samples, scene) for scene in left_out] or [Split(samples, [])]
    return StrategyResult(network, contract, RIDGE, logits, probabilities, [], []), splits


def _keeps_every_label(scene: np.ndarray, class_ids: np.ndarray, num_classes: int) -> bool:
    return len(set(np.delete(class_ids, scene))) == num_classes


def _split(samples: list[Sample], scene: np.ndarray) -> Split:
    validation = set(scene.tolist())
    train = [sample for index, sample in enumerate(samples) if index not in validation]
    return Split(train, [samples[index] for index in scene])


class _Views(Sequence):
    """Augmented copies of each image: one of every image, then the next of every image.

    Attributes:
        num_views: copies of each image.
        backgrounds: for each view, the index of the recorded background that it shows, or -1.
    """

    def __init__(self, augmentation: Augmentation, seed: int, num_views: int):
        self.num_views = num_views
        self._augmentation = augmentation
        num_images = len(augmentation.images)
        self._params = [
            augmentation.sample(index, np.random.default_rng((seed, view, index)))
            for view in range(num_views)
            for index in range(num_images)
        ]
        self.backgrounds = [_recorded_background(params) for params in self._params]

    def __len__(self) -> int:
        return len(self._params)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]  # slices are not needed
        return self._augmentation.apply(self._params[index])


def _recorded_background(params: AugmentParams) -> int:
    if params.background is None or params.background.base.is_clutter:
        return -1
    return params.background.base.index
