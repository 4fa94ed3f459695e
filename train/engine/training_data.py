"""The images of a training, with the features and foregrounds that are computed from them once."""

from __future__ import annotations

from functools import cached_property

import torch

from teachcam.contract import Contract
from teachcam.train.augment.cpu import Augmentation
from teachcam.train.augment.foreground import Foregrounds, segment_foregrounds
from teachcam.train.data.dataset import Examples
from teachcam.train.engine.context import Context
from teachcam.train.engine.features import extract_features
from teachcam.train.model.backbones import Network


class TrainingData:
    """The network to start from, and the images to train and validate it on.

    Features and foregrounds are computed when they are first needed, and kept.
    """

    def __init__(
        self,
        network: Network,
        contract: Contract,
        train: Examples,
        validation: Examples,
        context: Context | None = None,
        augment: str = "room",
    ):
        """Store the images; nothing is computed yet.

        Args:
            network: the network to start from; its backbone computes the features, and it is not changed.
            contract: labels, input size and normalization.
            train: the training images.
            validation: the validation images; may be empty.
            context: what the trainings run with.
            augment: kind of augmentation: room, light or none.
        """
        self.network, self.contract, self.train, self.validation = network, contract, train, validation
        self.context, self._augment = context or Context(), augment

    @cached_property
    def features(self) -> torch.Tensor:
        """The backbone's features of all images, training images first, float32 [N, D] on the device."""
        images = self.train.images + self.validation.images
        return extract_features(self.network, images, self.contract, self.context)

    @cached_property
    def augmentation(self) -> Augmentation:
        """The augmentation of the training images."""
        return make_augmentation(self.train, self.contract.labels, self._augment)

    def merged(self) -> TrainingData:
        """Return the data with the validation images moved to the training images. What was computed is reused."""
        merged = TrainingData(
            self.network,
            self.contract,
            self.train + self.validation,
            self.validation[:0],
            self.context,
            self._augment,
        )
        if "features" in self.__dict__:
            merged.features = self.features
        if "augmentation" in self.__dict__:
            own = make_augmentation(self.validation, self.contract.labels, self._augment)
            merged.augmentation = self.augmentation + own
        return merged


def make_augmentation(examples: Examples, labels: tuple[str, ...], kind: str = "room") -> Augmentation:
    """Return the augmentation of these images; the kind `room` segments their foregrounds."""
    if kind != "room":
        return Augmentation(examples.images, Foregrounds.empty(len(examples)), kind, labels)
    foregrounds = segment_foregrounds(examples.images, examples.class_ids.numpy(), examples.backgrounds)
    return Augmentation(examples.images, foregrounds, kind, labels)
