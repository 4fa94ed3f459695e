"""Compare teachcam with each peer, line by line, in what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from catalog import OURS, PEERS, Peer

SAME = 0.01  # accuracies, and their errors, that differ by less count as the same
SAME_TIME = 0.1  # so do times that differ by a smaller part of the longer one
# What teachcam is compared in: the key, and its words.
CRITERIA = {
    "accuracy": "accuracy in the test rooms",
    "backbone": "accuracy with the same backbone",
    "claim": "error of the accuracy that it reports",
    "training": "seconds to train",
    "latency": "time from an image to its label",
    "start": "time from the start to the first label",
}


def compare(results: dict) -> list[str]:
    """Say for each peer and criterion whether teachcam is ahead, and why not where it is not. Empty without any."""
    lines = [
        "Accuracy, its error and the seconds to train are those of teachcam's default, in the trainings that both "
        "finished; with the same backbone, of the row that has the peer's. Loops are compared with the same backbone. "
        f"Accuracies and errors are called the same if they differ by less than {SAME:g} on average, or if one "
        "training favors teachcam and another the peer. Seeds alone change an accuracy by up to 0.06 in the hardest "
        "webcam rooms, so few trainings say little. Times are called the same if they differ by less than "
        f"{100 * SAME_TIME:g} %. Seconds to train are compared if teachcam misses the accuracy of the peer by less "
        f"than {SAME:g}; in brackets is the fastest row of teachcam that does so, too, chosen after the test. A "
        "sentence after *behind* names a difference that may be the cause; whether it is was not measured.",
    ]
    datasets = dict.fromkeys(row["data"] for row in results["trainings"])
    for peer in PEERS:
        if peer.is_ours:
            continue
        verdicts = []
        for data in datasets:
            runs = [row for row in results["trainings"] if row["data"] == data and "failed" not in row]
            verdicts += [(key, f"{data}, {text}", ahead) for key, text, ahead in _compare_training(peer, runs)]
        loops = {row["peer"]: row for row in results["loops"] if "failed" not in row}
        verdicts += _compare_loops(peer, loops)
        if verdicts:
            lines += ["", f"**{peer.title}**", ""]
        for key, text, ahead in verdicts:
            reason = peer.reasons.get(key, "") if ahead == "behind" else ""
            if ahead == "ahead" and key in peer.handicaps:
                ahead, reason = "not comparable", peer.handicaps[key]
            lines.append(f"- {text}: {ahead}." + (f" {reason}" if reason else ""))
    return lines if len(lines) > 1 else []


def _compare_training(peer: Peer, runs: list[dict]) -> list[tuple[str, str, str]]:
    """Compare a peer with teachcam's default in the trainings, by fold and seed, that both have done."""
    by_training = {(row["peer"], row["fold"], row["seed"]): row for row in runs}
    done = [key[1:] for key in by_training if key[0] == peer.name and (OURS, *key[1:]) in by_training]
    if not done:
        return []
    own = [
        (one, [by_training[(one.name, *training)] for training in done])
        for one in PEERS
        if one.is_ours and all((one.name, *training) in by_training for training in done)
    ]
    theirs, (_, ours) = [by_training[(peer.name, *training)] for training in done], own[0]
    verdicts = [_compare_accuracy("accuracy", ours, theirs)]
    same_backbone = [rows for one, rows in own if one.network == peer.network]
    if same_backbone and same_backbone[0] is not ours:
        verdicts.append(_compare_accuracy("backbone", same_backbone[0], theirs))
    verdicts.append(_compare_accuracy("claim", ours, theirs))
    goal = mean_of(theirs, accuracy_of) - SAME
    if mean_of(ours, accuracy_of) < goal:
        return [
            *verdicts,
            ("not reached", f"{CRITERIA['training']} to the accuracy of the peer: not reached", "behind"),
        ]
    mine, other = (mean_of(rows, seconds_of) for rows in (ours, theirs))
    text = f"{CRITERIA['training']}: {mine:.0f} against {other:.0f}"
    reached = [(mean_of(rows, seconds_of), one.title) for one, rows in own if mean_of(rows, accuracy_of) >= goal]
    fastest, title = min(reached)
    if fastest < mine:
        text += f" ({fastest:.0f} with {title})"
    return [*verdicts, ("training", text, _compare_times(mine, other))]


def _compare_accuracy(key: str, ours: list[dict], theirs: list[dict]) -> tuple[str, str, str]:
    """Compare accuracies, or for the criterion "claim" their errors, in the same trainings."""
    measure, sign = (error_of, -1) if key == "claim" else (accuracy_of, 1)
    gains = [sign * (measure(mine) - measure(other)) for mine, other in zip(ours, theirs, strict=True)]
    is_mixed = min(gains) < 0 < max(gains)
    ahead = "the same" if is_mixed or abs(np.mean(gains)) < SAME else "ahead" if np.mean(gains) > 0 else "behind"
    num_trainings = f"{len(gains)} training{'s' if len(gains) > 1 else ''}"
    text = f"{CRITERIA[key]}: {mean_of(ours, measure):.3f} against {mean_of(theirs, measure):.3f} ({num_trainings})"
    return key, text, ahead


def _compare_loops(peer: Peer, loops: dict[str, dict]) -> list[tuple[str, str, str]]:
    own = [loops[one.name] for one in PEERS if one.is_ours and one.network == peer.network and one.name in loops]
    if peer.name not in loops or not own:
        return []
    theirs, ours = loops[peer.name], own[0]
    verdicts = []
    for key, name, factor, unit in (("latency", "p50", 1000, "ms"), ("start", "first_label", 1, "s")):
        mine, other = (factor * float(np.median(row[name])) for row in (ours, theirs))
        text = f"{CRITERIA[key]}: {mine:.2f} {unit} against {other:.2f} {unit}"
        verdicts.append((key, text, _compare_times(mine, other)))
    return verdicts


def _compare_times(mine: float, other: float) -> str:
    """Say whether teachcam takes less time than a peer."""
    if abs(mine - other) < SAME_TIME * max(mine, other):
        return "the same"
    return "ahead" if mine < other else "behind"


def seconds_of(row: dict) -> float:
    """Return the seconds of a training until there is the file that the loop runs: teachcam's export counts, too."""
    return row["seconds"] + row.get("export_seconds", 0.0)


def accuracy_of(row: dict) -> float:
    """Return a training's accuracy in the test rooms."""
    return row["accuracy"]


def error_of(row: dict) -> float:
    """Return how far the accuracy that a program reports is from that in the test rooms."""
    return abs(row["claim"] - row["accuracy"])


def is_in_interval(row: dict) -> bool:
    """Return whether the interval that a program states holds its accuracy in the test rooms."""
    low, high = row["claim_interval"]
    return low <= row["accuracy"] <= high


def agrees(row: dict) -> bool:
    """Return whether the difference between the stated accuracy and that in the test rooms is within chance.

    It is if the 95 % interval of the difference holds 0, which is Newcombe's (1998) of two intervals.
    """
    (claim_low, claim_high), (test_low, test_high) = row["claim_interval"], row["accuracy_interval"]
    claim, accuracy = row["claim"], row["accuracy"]
    if claim > accuracy:
        return claim - accuracy <= math.hypot(claim - claim_low, test_high - accuracy)
    return accuracy - claim <= math.hypot(claim_high - claim, accuracy - test_low)


def mean_of(rows: list[dict], measure: Callable[[dict], float]) -> float:
    """Return the mean of what a function above returns for each row."""
    return float(np.mean([measure(row) for row in rows]))
