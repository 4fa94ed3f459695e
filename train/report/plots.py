"""Draw the plots of the report and of the notebook's training panel, as SVG text."""

from __future__ import annotations

import io
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from teachcam.calibration import ConfidenceBin

BLUE, ORANGE, GRAY = "#2563eb", "#ea580c", "#94a3b8"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": GRAY, "axes.grid": True, "grid.color": "#e2e8f0", "svg.fonttype": "none",
}  # fmt: skip


def training_curves(epochs: list[dict]) -> str:
    """Plot the loss of each epoch, and the validation loss and accuracy if they were measured.

    Args:
        epochs: Rows with `epoch`, `loss`, `validation_loss` and `validation_accuracy`, as epochs.jsonl has them.

    Returns:
        An <svg> element.
    """
    measured = [row for row in epochs if row["validation_accuracy"] is not None]
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 3) if measured else (4, 3), layout="constrained")
        axes = figure.subplots(1, 2 if measured else 1, squeeze=False)[0]
        numbers = [row["epoch"] for row in epochs]
        axes[0].plot(numbers, [row["loss"] for row in epochs], color=BLUE, marker=".", label="training")
        if measured:
            numbers = [row["epoch"] for row in measured]
            losses = [row["validation_loss"] for row in measured]
            axes[0].plot(numbers, losses, color=ORANGE, marker=".", label="validation")
            accuracies = [100 * row["validation_accuracy"] for row in measured]
            axes[1].plot(numbers, accuracies, color=ORANGE, marker=".")
            axes[1].set(title="validation accuracy, %", xlabel="epoch", ylim=(min(0, *accuracies), 102))
            axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set(title="loss", xlabel="epoch")
        axes[0].set_ylim(bottom=0)
        axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].legend(frameon=False)
    return _to_svg(figure)


def reliability_diagram(bins: list[ConfidenceBin], num_bins: int = 10) -> str:
    """Plot the accuracy of predictions against their confidence.

    Args:
        bins: Bins of `confidence_bins`.
        num_bins: Number of intervals, empty ones included.

    Returns:
        An <svg> element.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(4, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=GRAY, linestyle="--", label="perfect calibration")
        centers = [100 * (one.index + 0.5) / num_bins for one in bins]
        axes.bar(centers, [100 * one.accuracy for one in bins], 92 / num_bins, color=BLUE, alpha=0.8)
        for center, one in zip(centers, bins, strict=True):
            axes.text(center, 100 * one.accuracy + 1, str(one.num_images), ha="center", fontsize=8, color="#475569")
        axes.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 100), ylim=(0, 108))
        axes.legend(frameon=False, loc="upper left")
    return _to_svg(figure)


def _to_svg(figure: Figure) -> str:
    """Return a figure as an <svg> element that scales with the page."""
    file = io.StringIO()
    with rc_context({**STYLE, "svg.hashsalt": "teachcam"}):  # the same ids in every run
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]
