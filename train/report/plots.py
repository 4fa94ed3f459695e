"""The plots of a report and of the notebook panel, as SVG text."""

from __future__ import annotations

import io

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GRAY = "#2563eb", "#ea580c", "#94a3b8"
STYLE = {
    "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": GRAY, "axes.grid": True, "grid.color": "#e2e8f0", "svg.fonttype": "none",
}  # fmt: skip


def curves(epochs: list[dict]) -> str:
    """Plot the epochs' losses, and their held-out accuracy where there is one."""
    measured = [line for line in epochs if line["validation_accuracy"] is not None]
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 3) if measured else (4, 3), layout="constrained")
        axes = figure.subplots(1, 2 if measured else 1, squeeze=False)[0]
        numbers = [line["epoch"] for line in epochs]
        axes[0].plot(numbers, [line["loss"] for line in epochs], color=BLUE, marker=".", label="training")
        if measured:
            numbers = [line["epoch"] for line in measured]
            axes[0].plot(
                numbers, [line["validation_loss"] for line in measured], color=ORANGE, marker=".", label="held out"
            )
            accuracy = [100 * line["validation_accuracy"] for line in measured]
            axes[1].plot(numbers, accuracy, color=ORANGE, marker=".")
            axes[1].set(title="held-out accuracy, %", xlabel="epoch", ylim=(min(0, *accuracy), 102))
            axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set(title="loss", xlabel="epoch")
        axes[0].set_ylim(bottom=0)
        axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].legend(frameon=False)
    return _svg(figure)


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> str:
    """Plot how often answers are right against how sure they are; `confidence` is float [N], `right` bool [N]."""
    own = np.minimum((confidence * bins).astype(int), bins - 1)
    filled = [index for index in range(bins) if (own == index).any()]
    with rc_context(STYLE):
        figure = Figure(figsize=(4, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=GRAY, linestyle="--", label="what they promise")
        shares = [100 * right[own == index].mean() for index in filled]
        axes.bar([100 * (index + 0.5) / bins for index in filled], shares, 92 / bins, color=BLUE, alpha=0.8)
        for index, share in zip(filled, shares, strict=True):
            count = f"{(own == index).sum()}"
            axes.text(100 * (index + 0.5) / bins, share + 1, count, ha="center", fontsize=8, color="#475569")
        axes.set(xlabel="confidence, %", ylabel="answers that are right, %", xlim=(0, 100), ylim=(0, 108))
        axes.legend(frameon=False, loc="upper left")
    return _svg(figure)


def _svg(figure: Figure) -> str:
    """Return a figure as an <svg> element that scales with the page."""
    file = io.StringIO()
    with rc_context({**STYLE, "svg.hashsalt": "teachcam"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]
