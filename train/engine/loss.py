"""The loss of training by gradients: cross entropy in which every label counts the same, however many images it has.

The head in closed form, of `ridge`, has another one: the squared error (teachcam/ridge.py).
"""

from __future__ import annotations

import torch
from torch.nn import functional

OUTLIER_WEIGHT = 1.5  # weight of all outliers of a batch together; its labeled images together have weight 1


def class_weights(class_ids: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return the weight of each label in the loss, inverse to its number of images.

    Args:
        class_ids: Class ids of all training images, int64 [N].
        num_classes: Number of labels.

    Returns:
        float32 [num_classes]. Their mean over the images is 1.
    """
    counts = torch.bincount(class_ids, minlength=num_classes).clamp(min=1)
    return len(class_ids) / (num_classes * counts.float())


def weighted_cross_entropy(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the sum of the weighted cross entropies of a batch, or of a part of it.

    Args:
        logits: Logits, float [N, num_classes].
        targets: Probabilities to learn, float [N, num_classes].
        weights: Weights of the rows, float [N], as `batch_targets` returns them.
    """
    return (functional.cross_entropy(logits, targets, reduction="none") * weights).sum()


def batch_targets(
    class_ids: torch.Tensor, weights: torch.Tensor, num_outliers: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the targets of a batch and the weight of each row in its loss.

    Outliers come after the labeled images. Their target is the same probability for every label (outlier exposure,
    Hendrycks 2019).

    Args:
        class_ids: Class ids of the batch's images, int64 [N].
        weights: Weights of the labels, float32 [num_classes], as `class_weights` returns them.
        num_outliers: Number of images of no label.

    Returns:
        Targets, float32 [N + num_outliers, num_classes], and weights, float32 [N + num_outliers].
    """
    num_classes = len(weights)
    labeled = functional.one_hot(class_ids, num_classes).float()
    targets = torch.cat([labeled, torch.full((num_outliers, num_classes), 1 / num_classes)])
    own = weights[class_ids]
    return targets, torch.cat([own / own.sum(), torch.full((num_outliers,), OUTLIER_WEIGHT / max(1, num_outliers))])
