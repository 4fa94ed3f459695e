"""A classification head in closed form: ridge regression to the labels, evaluated on scenes that it has not seen.

    head = fit_ridge(rows, num_classes)
    logits = head.logits(features)     # float64 [N, num_classes]
    head.held_out_logits               # of each image, by a head that never saw its scene

It needs numpy only, has no epochs, no learning rate and no random numbers, and takes a second.
`ridge_sums.py` has the same head for rows that come and go.

The strength of the regularization is chosen by the accuracy in held-out folds, usually one for each scene. Holding a
fold out needs no training: the head without a block of rows follows exactly from the head with them (Allen's PRESS for
blocks), where I is the identity and H the block of the matrix that turns targets into predictions:

    target - prediction without the block = (I - H)^-1 (target - prediction with the block)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Sequence

import numpy as np

from teachcam.ridge_inputs import Inputs, chunks, principal_axes, signed_sqrt

# Candidates, as multiples of the mean variance of a feature. Below and above, accuracy in new scenes fell.
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
DEFAULT_STRENGTH = 2.0  # near the best for hands, thumbs and digits in new scenes, with two backbones
TOLERANCE = 1.0  # standard errors of an accuracy over folds: strengths within it count as equal
LOGIT_SCALE = 10.0  # scores lie between 0 and 1; ten times that is the usual range of logits


@dataclass(frozen=True)
class Rows:
    """The rows that a head is trained on: one for each image, and one for each augmented view of it.

    A row with a background is held out with both folds: with the one of its object, and with that of its background.
    """

    features: np.ndarray  # float32 [N, D]
    class_ids: np.ndarray  # int [N]; -1 for an outlier, which belongs to no class
    fold_ids: np.ndarray  # int [N], the fold that holds each image out, usually its scene; -1 if none does
    backgrounds: np.ndarray  # int [N], the fold whose background a view shows, or -1
    is_view: np.ndarray  # bool [N]: views are trained on, and never evaluated

    @property
    def groups(self) -> np.ndarray:
        """The group of each row, int [N]: images and views of a class are one each, and outliers are one."""
        return 2 * (self.class_ids + 1) + self.is_view

    @property
    def weights(self) -> np.ndarray:
        """The weight of each row, float64 [N], sum 1.

        The images of a class weigh as much as those of any other, and as all their views. Outliers weigh half of it.
        """
        weights = 1 / np.bincount(self.groups)[self.groups]
        return weights / weights.sum()

    @property
    def evaluated(self) -> np.ndarray:
        """The indices of the images that are held out once, int [M]."""
        return np.flatnonzero(~self.is_view & (self.fold_ids >= 0))

    def __add__(self, other: Rows) -> Rows:
        return Rows(*(np.concatenate(pair) for pair in zip(self._columns, other._columns)))

    def select(self, keep: np.ndarray) -> Rows:
        """Return some of the rows, by bool [N]."""
        return Rows(*(column[keep] for column in self._columns))

    @property
    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.features, self.class_ids, self.fold_ids, self.backgrounds, self.is_view

    def targets(self, num_classes: int, outliers: bool) -> np.ndarray:
        """Return float64 [N, num_classes + outliers]: 1 in the column of the row's class; the last is for outliers."""
        columns = [*range(num_classes), -1][: num_classes + outliers]
        return (self.class_ids[:, None] == columns).astype(float)

    def in_fold(self, fold_id: int) -> np.ndarray:
        """Return which rows are held out with a fold, bool [N]."""
        return (self.fold_ids == fold_id) | (self.backgrounds == fold_id)


@dataclass(frozen=True)
class RidgeHead:
    """A linear head on the signed square roots of features.

    It has an output for each class, and a last one for outliers if it was fitted with them.
    """

    weight: np.ndarray  # float64 [D, num_outputs]
    bias: np.ndarray  # float64 [num_outputs]
    strength: float  # of the regularization
    held_out_logits: np.ndarray  # float64 [M, num_outputs], of the images that are evaluated

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return the logits of features, float [N, D], as float64 [N, num_outputs]."""
        return signed_sqrt(features) @ self.weight + self.bias


def fit_ridge(
    rows: Rows, num_classes: int, strength: float | None = None, evaluate: bool = True, outliers: bool = False
) -> RidgeHead:
    """Fit a head.

    Args:
        rows: What to train on. Every class needs a row.
        num_classes: Number of classes.
        strength: Strength of the regularization. By default the one that is most accurate in the folds.
        evaluate: Whether to compute `held_out_logits`.
        outliers: Whether the head has an output for them.
    """
    weights = rows.weights
    inputs = Inputs(rows.features, weights)
    # In the coordinates of the principal axes the normal equations are diagonal, whatever the strength.
    variances, axes = principal_axes(inputs, weights)
    system = _System(inputs.along(axes), np.append(1.0, variances), weights, rows.targets(num_classes, outliers))
    evaluated = rows.evaluated
    blocks = [np.flatnonzero(rows.in_fold(fold_id)) for fold_id in np.unique(rows.fold_ids[evaluated])]
    held_out = np.zeros((0, num_classes + outliers))
    if evaluate and blocks and max(map(len, blocks)) < len(weights):
        candidates = STRENGTHS if strength is None else (strength,)
        predictions = [prediction[evaluated] for prediction in _held_out(system, blocks, candidates)]
        best = _choose([_accuracies(prediction[:, :num_classes], rows) for prediction in predictions], candidates)
        strength, held_out = candidates[best], LOGIT_SCALE * predictions[best]
    strength = DEFAULT_STRENGTH if strength is None else strength
    coefficients = LOGIT_SCALE * system.solve(strength)
    weight = axes @ coefficients[1:] / inputs.scale
    return RidgeHead(weight, coefficients[0] - inputs.mean @ weight, strength, held_out)


@dataclass(frozen=True)
class _System:
    """Weighted least squares in coordinates in which the rows' second moments are diagonal."""

    rows: np.ndarray | Inputs  # float64 [N, 1 + D]; the first column is 1
    moments: np.ndarray  # float64 [1 + D], the weighted mean square of each column
    weights: np.ndarray  # float64 [N], sum 1
    targets: np.ndarray  # float64 [N, num_classes], 1 for the row's class, else 0

    @cached_property
    def right(self) -> np.ndarray:
        """The right side of the normal equations, float64 [1 + D, num_classes]."""
        weighted = self.weights[:, None] * self.targets
        return sum(self.rows[chunk].T @ weighted[chunk] for chunk in chunks(len(weighted)))

    def penalized(self, strength: float) -> np.ndarray:
        """Return the moments with the penalty, which spares the first column, the bias."""
        return self.moments + np.append(0.0, np.full(len(self.moments) - 1, strength))

    def solve(self, strength: float) -> np.ndarray:
        """Return the coefficients, float64 [1 + D, num_classes]."""
        return self.right / self.penalized(strength)[:, None]


def _held_out(system: _System, blocks: list[np.ndarray], strengths: Sequence[float]) -> list[np.ndarray]:
    """Return each row's prediction by the head that was not fitted to its block, for each strength.

    A row in several blocks gets the prediction of the last one; rows that are evaluated are in one block only.

    Returns:
        float64 [N, num_classes], for each strength.
    """
    fits = [(system.penalized(strength), system.solve(strength)) for strength in strengths]
    predictions = [np.zeros_like(system.targets) for _ in strengths]
    for block in blocks:
        rows, weights, targets = system.rows[block], system.weights[block][:, None], system.targets[block]
        weighted = rows * weights
        is_large = len(block) > rows.shape[1]
        products = rows.T @ weighted if is_large else None
        for (penalized, coefficients), prediction in zip(fits, predictions):
            if is_large:  # take the rows out of the normal equations: faster for large blocks
                right = penalized[:, None] * coefficients - rows.T @ (targets * weights)
                prediction[block] = rows @ np.linalg.solve(np.diag(penalized) - products, right)
            else:
                hat = (rows / penalized) @ weighted.T
                residuals = np.linalg.solve(np.eye(len(block)) - hat, targets - rows @ coefficients)
                prediction[block] = targets - residuals
    return predictions


def _accuracies(predictions: np.ndarray, rows: Rows) -> np.ndarray:
    """Return the accuracy in each fold, float64 [folds], in which all classes count the same."""
    class_ids, fold_ids = rows.class_ids[rows.evaluated], rows.fold_ids[rows.evaluated]
    weights = 1 / np.bincount(class_ids)[class_ids]
    correct = predictions.argmax(1) == class_ids
    return np.array(
        [np.average(correct[fold_ids == one], weights=weights[fold_ids == one]) for one in np.unique(fold_ids)]
    )


def _choose(accuracies: list[np.ndarray], strengths: tuple[float, ...]) -> int:
    """Return the index of the strength to use: of those that are about as accurate as the best, the most usual one.

    A few folds can't tell neighboring strengths apart. The very best one is then a matter of luck.

    Args:
        accuracies: Accuracy in each fold, float64 [folds], for each strength.
        strengths: Strengths.
    """
    means = [accuracy.mean() for accuracy in accuracies]
    best = int(np.argmax(means))
    error = accuracies[best].std() / np.sqrt(len(accuracies[best]))
    equal = [index for index, mean in enumerate(means) if mean >= means[best] - TOLERANCE * error]
    return min(equal, key=lambda index: abs(np.log(strengths[index] / DEFAULT_STRENGTH)))
