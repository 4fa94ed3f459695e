"""A classification head in closed form: ridge regression to the labels, judged by scenes that it has not seen.

    head = fit_ridge(rows, num_classes)
    logits = head.logits(features)     # float64 [N, num_classes]
    head.held_out_logits               # of each image, by a head that never saw its scene

It needs numpy only, has no epochs, no learning rate and no random numbers, and takes a second.

The strength of the regularization is chosen by leave-one-scene-out accuracy. Leaving a scene out needs no training: the
head without a block of rows follows exactly from the head with them (Allen's PRESS for blocks), where I is the identity
and H the block of the matrix that turns targets into predictions:

    target - prediction without the block = (I - H)^-1 (target - prediction with the block)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Candidates, as multiples of the mean variance of a feature. Below and above, accuracy in new scenes fell.
STRENGTHS = tuple(10 ** (exponent / 4) for exponent in range(-4, 7))
DEFAULT_STRENGTH = 1.0  # near the best for hands, thumbs and digits in new scenes, with two backbones
TOLERANCE = 0.5  # of an accuracy's standard error over scenes: what differs by less is taken for equally accurate
IMAGE_WEIGHT = 2.0  # of an image, if an augmented view weighs 1
SQRT_EPSILON = 1e-6  # avoids 0 / 0, and is not 0 in float16
LOGIT_SCALE = 10.0  # scores lie between 0 and 1; ten times that is the usual range of logits


@dataclass(frozen=True)
class Rows:
    """The rows that a head is trained on: one for each image, and one for each augmented view of it.

    A row with a background is left out with both scenes: with the one of its object, and with that of its background.
    """

    features: np.ndarray  # float32 [N, D]
    class_ids: np.ndarray  # int [N]
    scenes: np.ndarray  # int [N], the scene of each image
    backgrounds: np.ndarray  # int [N], the scene whose background a view shows, or -1
    is_view: np.ndarray  # bool [N]: views are trained on, and never judged


@dataclass(frozen=True)
class RidgeHead:
    """A linear head on the signed square roots of features."""

    weight: np.ndarray  # float64 [D, num_classes]
    bias: np.ndarray  # float64 [num_classes]
    strength: float  # of the regularization
    held_out_logits: np.ndarray | None  # float64 [images, num_classes], in the rows' order; None for a single scene

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return the logits of features, float [N, D], as float64 [N, num_classes]."""
        return signed_sqrt(features) @ self.weight + self.bias


def signed_sqrt(features: np.ndarray) -> np.ndarray:
    """Return the square roots of the magnitudes, with their signs. It evens out large features (Perronnin 2010)."""
    features = features.astype(np.float64)
    return features / np.sqrt(np.abs(features) + SQRT_EPSILON)


def fit_ridge(rows: Rows, num_classes: int, strength: float | None = None) -> RidgeHead:
    """Fit a head. All classes count the same, however many rows they have.

    Args:
        rows: What to train on. Every class needs a row.
        num_classes: Number of classes.
        strength: Of the regularization. By default the one that is most accurate in scenes that are left out.
    """
    inputs = signed_sqrt(rows.features)
    weights = np.where(rows.is_view, 1.0, IMAGE_WEIGHT)
    weights /= num_classes * np.bincount(rows.class_ids, weights, num_classes)[rows.class_ids]  # their sum is 1
    mean = weights @ inputs
    inputs = inputs - mean
    scale = np.sqrt(np.mean(weights @ inputs**2)) or 1.0
    inputs /= scale
    # In the coordinates of the eigenvectors the normal equations are diagonal, whatever the strength.
    variances, vectors = np.linalg.eigh((inputs * weights[:, None]).T @ inputs)
    system = _System(
        np.column_stack([np.ones(len(inputs)), inputs @ vectors]),
        np.append(1.0, np.maximum(variances, 0.0)),
        weights,
        np.eye(num_classes)[rows.class_ids],
    )
    blocks, judged = _blocks(rows)
    held_out = None
    if len(blocks) > 1:
        candidates = STRENGTHS if strength is None else (strength,)
        predictions = [_held_out(system, blocks, candidate)[judged] for candidate in candidates]
        best = _choose([_accuracies(prediction, rows, judged) for prediction in predictions], candidates)
        strength, held_out = candidates[best], LOGIT_SCALE * predictions[best]
    strength = DEFAULT_STRENGTH if strength is None else strength
    coefficients = LOGIT_SCALE * system.solve(strength)
    weight = vectors @ coefficients[1:] / scale
    return RidgeHead(weight, coefficients[0] - mean @ weight, strength, held_out)


@dataclass(frozen=True)
class _System:
    """Weighted least squares in coordinates in which the rows' second moments are diagonal."""

    rows: np.ndarray  # float64 [N, 1 + D]; the first column is 1
    moments: np.ndarray  # float64 [1 + D], the weighted mean square of each column
    weights: np.ndarray  # float64 [N], sum 1
    targets: np.ndarray  # float64 [N, num_classes], 1 for the row's class

    def penalized(self, strength: float) -> np.ndarray:
        """Return the moments with the penalty, which spares the first column, the bias."""
        return self.moments + np.append(0.0, np.full(len(self.moments) - 1, strength))

    def solve(self, strength: float) -> np.ndarray:
        """Return the coefficients, float64 [1 + D, num_classes]."""
        right = self.rows.T @ (self.weights[:, None] * self.targets)
        return right / self.penalized(strength)[:, None]


def _held_out(system: _System, blocks: list[np.ndarray], strength: float) -> np.ndarray:
    """Return each row's prediction by the head that was not fitted to its block, float64 [N, num_classes].

    A row in several blocks gets the prediction of the last one; rows that are judged are in one block only.
    """
    penalized, coefficients = system.penalized(strength), system.solve(strength)
    predictions = np.zeros_like(system.targets)
    for block in blocks:
        rows, weights, targets = system.rows[block], system.weights[block][:, None], system.targets[block]
        if len(block) <= len(penalized):
            hat = (rows / penalized) @ (rows * weights).T
            residuals = np.linalg.solve(np.eye(len(block)) - hat, targets - rows @ coefficients)
            predictions[block] = targets - residuals
        else:  # the same, by taking the rows out of the normal equations: faster for large blocks
            left = np.diag(penalized) - rows.T @ (rows * weights)
            right = penalized[:, None] * coefficients - rows.T @ (targets * weights)
            predictions[block] = rows @ np.linalg.solve(left, right)
    return predictions


def _blocks(rows: Rows) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the rows that are left out with each scene, and the rows that are judged: all but views."""
    scenes = [np.flatnonzero((rows.scenes == scene) | (rows.backgrounds == scene)) for scene in np.unique(rows.scenes)]
    return scenes, np.flatnonzero(~rows.is_view)


def _accuracies(predictions: np.ndarray, rows: Rows, judged: np.ndarray) -> np.ndarray:
    """Return the accuracy in each scene, float64 [scenes], in which all classes count the same."""
    class_ids, scenes = rows.class_ids[judged], rows.scenes[judged]
    weights = 1 / np.bincount(class_ids)[class_ids]
    correct = predictions.argmax(1) == class_ids
    return np.array(
        [np.average(correct[scenes == scene], weights=weights[scenes == scene]) for scene in np.unique(scenes)]
    )


def _choose(accuracies: list[np.ndarray], strengths: tuple[float, ...]) -> int:
    """Return the index of the strength to use: of those that are about as accurate as the best, the most usual one.

    A few scenes can't tell neighboring strengths apart. The very best one is then a matter of luck.

    Args:
        accuracies: float64 [scenes], for each strength.
        strengths: The strengths.
    """
    means = [accuracy.mean() for accuracy in accuracies]
    best = int(np.argmax(means))
    error = accuracies[best].std() / np.sqrt(len(accuracies[best]))
    equal = [index for index, mean in enumerate(means) if mean >= means[best] - TOLERANCE * error]
    return min(equal, key=lambda index: abs(np.log(strengths[index] / DEFAULT_STRENGTH)))
