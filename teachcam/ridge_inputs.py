"""The inputs of a ridge head: the signed square roots of features, of which only a chunk is in memory at a time."""

from __future__ import annotations

import copy

import numpy as np

SQRT_EPSILON = 0.05  # bounds the slope at 0, for what is trained below the head; accuracy is the same with 1e-6
CHUNK = 20_000  # rows that are in memory as float64 at once: 200 MB for 1280 features


def signed_sqrt(features: np.ndarray) -> np.ndarray:
    """Return the square roots of the magnitudes, with their signs. It evens out large features (Perronnin 2010)."""
    features = features.astype(np.float64)
    return features / np.sqrt(np.abs(features) + SQRT_EPSILON)


class Inputs:
    """Signed square roots of features, centered and scaled. Of many rows, only a chunk is made at a time.

    Attributes:
        shape: Number of rows and of columns.
        mean: The weighted mean of each column, float64 [D].
        scale: What all columns are divided by.
    """

    def __init__(self, features: np.ndarray, weights: np.ndarray):
        """Compute the mean and the scale of features, float32 [N, D], by the weights of the rows, float64 [N]."""
        self.shape = features.shape
        self._features = features
        self._axes: np.ndarray | None = None
        self._whole = signed_sqrt(features) if len(features) <= CHUNK else None  # saves time, where memory suffices
        self.mean, self.scale = np.zeros(features.shape[1]), 1.0
        self.mean = sum(weights[chunk] @ self[chunk] for chunk in chunks(len(features)))
        squares = sum(weights[chunk] @ self[chunk] ** 2 for chunk in chunks(len(features)))
        self.scale = np.sqrt(np.mean(squares)) or 1.0

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return some of the rows, float64 [n, D], or [n, 1 + K] in the coordinates of `along`."""
        roots = signed_sqrt(self._features[rows]) if self._whole is None else self._whole[rows]
        inputs = (roots - self.mean) / self.scale
        return inputs if self._axes is None else np.column_stack([np.ones(len(inputs)), inputs @ self._axes])

    def along(self, axes: np.ndarray) -> np.ndarray | Inputs:
        """Return the rows in the coordinates of axes, float64 [D, K], after a column of ones.

        Few rows are an array. Of more, only those are made that are asked for.
        """
        rows = copy.copy(self)
        rows._axes, rows.shape = axes, (len(self._features), 1 + axes.shape[1])
        return rows if self._whole is None else rows[:]


def chunks(num_rows: int) -> list[slice]:
    """Return slices of CHUNK rows that cover all rows."""
    return [slice(start, start + CHUNK) for start in range(0, num_rows, CHUNK)]


def principal_axes(inputs: Inputs, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of squares along the principal axes, float64 [K], and the axes, float64 [D, K].

    Few rows span few axes: that takes a fraction of the time of the full decomposition.
    """
    num_rows, num_features = inputs.shape
    weighted = (np.sqrt(weights[chunk])[:, None] * inputs[chunk] for chunk in chunks(num_rows))
    if num_rows >= num_features:
        squares, axes = np.linalg.eigh(sum(rows.T @ rows for rows in weighted))
        return np.maximum(squares, 0.0), axes
    rows = np.concatenate(list(weighted))
    squares, coordinates = np.linalg.eigh(rows @ rows.T)
    spanned = squares > 1e-10 * max(squares[-1], 1e-10)
    return squares[spanned], rows.T @ (coordinates[:, spanned] / np.sqrt(squares[spanned]))
