"""Augmented images in a row, to compute features of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from teachcam.train.augment.augmentation import Augmentation
from teachcam.train.augment.params import AugmentParams


class _Views(Sequence):
    """Images that are made when they are asked for.

    Attributes:
        backgrounds: Index of the recorded background that each image shows, or -1, int [N].
    """

    def __init__(self, augmentation: Augmentation, params: list[AugmentParams]):
        self._augmentation, self._params = augmentation, params
        self.backgrounds = np.array([one.recorded_background for one in params], int)

    def __len__(self) -> int:
        return len(self._params)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]  # slices are not needed
        return self._augmentation.apply(self._params[index])


class AugmentedViews(_Views):
    """One augmented copy of each image. The same seed and number give the same copies."""

    def __init__(self, augmentation: Augmentation, seed: int, number: int):
        """Sample the parameters.

        Args:
            augmentation: Augmentation of the images.
            seed: Seed of the random numbers.
            number: Number of the copy of each image.
        """
        indices = range(len(augmentation.images))
        params = [augmentation.sample(index, np.random.default_rng((seed, number, index))) for index in indices]
        super().__init__(augmentation, params)


class OutlierViews(_Views):
    """Bare backgrounds, which belong to no label. The same seed and number give the same ones."""

    def __init__(self, augmentation: Augmentation, seed: int, number: int, count: int):
        """Sample the parameters.

        Args:
            augmentation: Augmentation, which knows the backgrounds.
            seed: Seed of the random numbers.
            number: Number of the set of outliers.
            count: Number of outliers.
        """
        rng = np.random.default_rng((seed, number, len(augmentation.images)))
        super().__init__(augmentation, [augmentation.sample_outlier(rng) for _ in range(count)])
