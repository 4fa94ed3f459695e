"""A ridge head for rows that change: it is computed from sums over them, so a change needs no pass over all rows.

sums = IncrementalRidge(num_features)
sums.add(rows)                        # and sums.remove(rows)
head = sums.fit(range(num_classes))
"""

from __future__ import annotations

import itertools
from typing import Sequence

import numpy as np

from teachcam.ridge import DEFAULT_STRENGTH, LOGIT_SCALE, RidgeHead, Rows
from teachcam.ridge_inputs import signed_sqrt

MAX_DENSE_GROUPS = 64  # groups of rows, each with a matrix of its own


class IncrementalRidge:
    """Sums over rows, from which a head follows, whatever the number of rows.

    Rows can be added and removed at any time. The head is then that of the rows that are left, but for rounding errors.
    It takes 8 D^2 bytes of memory for each group of rows (see `Rows.groups`): 13 MB for 1280 features. With many labels
    that is too much: after the first MAX_DENSE_GROUPS, a group with few rows keeps those in place of their products.
    """

    def __init__(self, num_features: int):
        """Begin without rows."""
        self._num_features = num_features
        self._groups: dict[int, _GroupSums] = {}
        self._mean_outer_products: np.ndarray | float = 0.0  # the sum over all groups that keep their rows

    def add(self, rows: Rows) -> None:
        """Add rows."""
        self._update(rows, 1)

    def remove(self, rows: Rows) -> None:
        """Remove rows that were added."""
        self._update(rows, -1)

    def fit(self, class_ids: Sequence[int], strength: float = DEFAULT_STRENGTH, outliers: bool = False) -> RidgeHead:
        """Return a head, without held-out logits.

        Args:
            class_ids: Classes that it tells apart, in the order of its outputs. Rows of others are not used. A
                class without rows scores 0.
            strength: Strength of the regularization.
            outliers: Whether outliers are used, and the head has an output for them.
        """
        class_ids = [*class_ids, -1] if outliers else class_ids
        own = {id: [self._groups.get(2 * (id + 1) + is_view) for is_view in (0, 1)] for id in class_ids}
        groups = {id: [group for group in pair if group is not None and group.count] for id, pair in own.items()}
        share = 1 / max(1, sum(map(len, groups.values())))  # of each group, in the sum of all weights
        mean, covariance = np.zeros(self._num_features), np.zeros((self._num_features, self._num_features))
        used = list(itertools.chain.from_iterable(groups.values()))
        for group in used:
            mean += share / group.count * group.total
            if group.products is not None:
                covariance += share / group.count * group.products
        covariance += share * self._mean_outer_products
        unused = dict.fromkeys(self._groups.values())
        for group in used:
            del unused[group]
        for group in unused:
            covariance -= share * group.mean_outer_product()
        covariance -= np.outer(mean, mean)
        variance = np.trace(covariance) / len(mean) or 1.0
        covariance.flat[:: len(mean) + 1] += strength * variance
        shares = np.array([share * len(groups[id]) for id in class_ids])
        sums = [sum((share / group.count * group.total for group in groups[id]), 0 * mean) for id in class_ids]
        weight = LOGIT_SCALE * np.linalg.solve(covariance, (np.array(sums) - shares[:, None] * mean).T)
        return RidgeHead(weight, LOGIT_SCALE * shares - mean @ weight, strength, np.zeros((0, len(shares))))

    def _update(self, rows: Rows, sign: int) -> None:
        inputs, groups = signed_sqrt(rows.features), rows.groups
        for name in np.unique(groups).tolist():
            if name not in self._groups:
                self._groups[name] = _GroupSums(self._num_features, len(self._groups) >= MAX_DENSE_GROUPS)
            group = self._groups[name]
            self._mean_outer_products = self._mean_outer_products - group.mean_outer_product()
            group.add(inputs[groups == name], sign)
            self._mean_outer_products = self._mean_outer_products + group.mean_outer_product()


class _GroupSums:
    """The sums over a group of rows. With `keeps_rows`, the rows stand for their products while they are few."""

    def __init__(self, num_features: int, keeps_rows: bool):
        self.count = 0
        self.total = np.zeros(num_features)
        self.products = None if keeps_rows else np.zeros((num_features, num_features))
        self.rows = np.zeros((0, num_features))

    def mean_outer_product(self) -> np.ndarray | float:
        """Return the mean product of the rows that are kept, float64 [D, D], or 0 if there are none."""
        return self.rows.T @ self.rows / self.count if len(self.rows) else 0.0

    def add(self, inputs: np.ndarray, sign: int) -> None:
        self.count += sign * len(inputs)
        self.total += sign * inputs.sum(0)
        if self.products is None:
            if sign > 0:
                self.rows = np.concatenate([self.rows, inputs])
            else:
                for row in inputs:
                    self.rows = np.delete(self.rows, np.flatnonzero((self.rows == row).all(1))[:1], axis=0)
            if len(self.rows) > len(self.total) // 4:
                self.products = self.rows.T @ self.rows
                self.rows = self.rows[:0]
        else:
            self.products += sign * inputs.T @ inputs
