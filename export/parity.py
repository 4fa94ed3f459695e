"""Compare the probabilities of an exported model with those of the network that it was exported from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from teachcam.errors import ExportError

# The largest difference of a probability that is allowed. Rounding explains less than this.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
EQUALLY_PROBABLE = 1e-6  # labels whose probabilities differ by less: which of them is the answer is up to rounding


@dataclass(frozen=True)
class Parity:
    """The agreement of two models on the same images."""

    num_images: int
    same_label: int  # number of images for which both models give the same label, or one that is equally probable
    largest_difference: float  # of any probability

    def require(self, tolerance: float = TOLERANCE["fp32"]) -> None:
        """Check that the models agree.

        Args:
            tolerance: The largest difference of a probability that is allowed. Above the tolerance of fp32, labels
                may differ: two labels can be almost equally probable.

        Raises:
            ExportError: A probability differs by more than `tolerance`, or is NaN, or a label differs in fp32.
        """
        labels_agree = self.same_label == self.num_images or tolerance > TOLERANCE["fp32"]
        if not (labels_agree and self.largest_difference <= tolerance):  # False for NaN
            raise ExportError(
                f"the exported model does not match the trained one: {self.same_label} of {self.num_images} labels "
                f"agree, largest difference {self.largest_difference:.2g} (allowed: {tolerance:g}); no file was written"
            )


@dataclass(frozen=True)
class ValidationResult:
    """Measurements of an exported file and of the network that it was made from, on the same images."""

    parity: Parity
    num_validation_images: int
    accuracy: float | None  # of the file on the validation images, 0 to 1; None without any
    fp32_accuracy: float | None  # of the network on the same images
    trained_on_validation: bool = False  # the network has learned these images, so the accuracies only compare the two
    float_layers: list[str] = field(default_factory=list)  # int8 only: layers that stayed in float, for accuracy

    def accuracies(self) -> str:
        """Return both accuracies as one line of text."""
        learned = ", which the last training used too" if self.trained_on_validation else ""
        images = f"{self.num_validation_images} validation images{learned}"
        return f"accuracy {self.accuracy:.3f} (fp32: {self.fp32_accuracy:.3f}) on {images}"


def compare(probabilities: np.ndarray, expected: np.ndarray) -> Parity:
    """Compare two models' probabilities, float [N, num_classes] each, of the same images."""
    expected_of_answer = np.take_along_axis(expected, probabilities.argmax(1)[:, None], 1)[:, 0]
    return Parity(
        num_images=len(probabilities),
        same_label=int((expected_of_answer >= expected.max(1) - EQUALLY_PROBABLE).sum()),
        largest_difference=float(np.abs(probabilities - expected).max()),
    )
