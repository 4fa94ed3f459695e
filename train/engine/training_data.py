"""What a strategy trains on: the network to start from, and the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from teachcam.collect.dataset import Sample
from teachcam.contract import Contract
from teachcam.train.augment.augmentation import Augmentation
from teachcam.train.augment.foreground import Foregrounds, segment_foregrounds
from teachcam.train.data.dataset import Dataset, Examples
from teachcam.train.engine.context import Context
from teachcam.train.engine.features import extract_features
from teachcam.train.model.backbones import build_network, check_input_size, normalization

if TYPE_CHECKING:
    from teachcam.train.run_config import RunConfig


class TrainingData:
    """The network to start from, and the images to train and evaluate it on.

    Attributes:
        config: Options of the run.
        dataset: Holds the images.
        samples: Samples to train on.
        test: Samples for a final test, which no strategy sees.
        network: Network to start from.
        initial_weights: Where its weights came from.
        contract: Labels, input size and normalization.
    """

    def __init__(
        self, config: RunConfig, dataset: Dataset, samples: list[Sample] | None = None, test: list[Sample] | None = None
    ):
        """Build the network.

        Args:
            config: Options of the run.
            dataset: Holds the images.
            samples: Samples to train on. By default all of the dataset.
            test: Samples for a final test.

        Raises:
            TrainingError: The network can't be built, or can't process images of that size.
        """
        self.config, self.dataset, self.test = config, dataset, test or []
        self.samples = dataset.samples if samples is None else samples
        self.network, self.initial_weights = build_network(
            config.backbone, len(dataset.labels), config.weights, config.seed, config.method.head or config.head
        )
        check_input_size(self.network, config.backbone, config.input_size)
        mean, std = normalization(config.backbone)
        color_order = "GRAY" if config.grayscale else "RGB"
        self.contract = Contract(dataset.labels, config.input_size, color_order, mean=mean, std=std)
        self._index = {sample.path: index for index, sample in enumerate(self.samples)}
        self._features: torch.Tensor | None = None

    def indices(self, samples: list[Sample]) -> np.ndarray:
        """Return the indices of some of the samples, int [n]."""
        return np.array([self._index[sample.path] for sample in samples], int)

    def examples(self, samples: list[Sample]) -> Examples:
        """Return the images of some of the samples, with their class ids, scenes and backgrounds."""
        return self.dataset.examples(samples)

    def features(self, samples: list[Sample], context: Context) -> torch.Tensor:
        """Return the backbone's features of some of the samples, float32 [n, D] on the device.

        Those of all are computed the first time.
        """
        if self._features is None:
            images = self.examples(self.samples).images
            self._features = extract_features(self.network, images, self.contract, context)
        return self._features[self.indices(samples)]

    def augmentation(self, samples: list[Sample]) -> Augmentation:
        """Return the augmentation of some of the samples."""
        return make_augmentation(self.examples(samples), self.dataset.labels, self.config.augment)


def make_augmentation(examples: Examples, labels: tuple[str, ...], kind: str = "room") -> Augmentation:
    """Return the augmentation of these images; the kind `room` segments their foregrounds."""
    if kind != "room":
        return Augmentation(examples.images, Foregrounds.empty(len(examples)), kind, labels)
    foregrounds = segment_foregrounds(examples.images, examples.class_ids.numpy(), examples.backgrounds)
    return Augmentation(examples.images, foregrounds, kind, labels)
