"""The report of a run: one HTML file that opens offline."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import jinja2
import numpy as np

from teachcam.collect.dataset import Sample
from teachcam.collect.inspection import examine
from teachcam.drawing import draw_heat_map
from teachcam.files import write_atomic
from teachcam.train.report.gradcam import activation_maps
from teachcam.train.report.plots import curves, reliability
from teachcam.train.report.result import TrainingResult

MISTAKES, LOOKS = 12, 6  # pictures shown
WRONG_IN_CELL, RIGHT_IN_CELL = 40, 12
SIDE = 200  # pixels, of a picture's width
EXAMINED = 5000  # frames, at most: all are compared with all


def write_report(path: Path, metrics: dict, evidence: TrainingResult) -> None:
    """Write the report of a run; `metrics` is what metrics.json holds."""
    labels, probabilities, items = metrics["labels"], evidence.outcome.probabilities, evidence.validation
    true = np.array([labels.index(item.label) for item in items], int)
    answers = probabilities.argmax(1) if len(items) else true
    surest = evidence.surest()
    wrong = [index for index in surest if answers[index] != true[index]]

    def shown(indices: list[int]) -> list[dict]:
        pictures = [_data_url(evidence.dataset.frames[items[index].path]) for index in indices]
        return [{**one, "image": image} for one, image in zip(evidence.answers(indices), pictures, strict=True)]

    cells = []
    for true_id, answer_id in np.argwhere(metrics["validation"]["confusion"]).tolist():
        own = [index for index in surest if (true[index], answers[index]) == (true_id, answer_id)]
        pictures = shown(own[: RIGHT_IN_CELL if true_id == answer_id else WRONG_IN_CELL])
        cells.append({"true_id": true_id, "answer_id": answer_id, "count": len(own), "pictures": pictures})
    right = _one_of_each(true, [index for index in surest if answers[index] == true[index]])
    looks = []
    for title, indices in (("Right answers", right[:LOOKS]), ("Wrong answers", wrong[:LOOKS])):
        heats = _heats(evidence, [items[index] for index in indices], [int(answers[index]) for index in indices])
        if heats is not None:
            pairs = [{**one, "heat": heat} for one, heat in zip(shown(indices), heats, strict=True)]
            looks.append((title, pairs))
    recorded = metrics["split"] == "session" and len(evidence.dataset.items) <= EXAMINED
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    page = environment.from_string(Path(__file__).with_name("report.html").read_text()).render(
        name=path.parent.name,
        folder=path.parent,
        run=metrics,
        score=metrics["validation"],
        sessions=metrics["validation_sessions"],
        by_session=_by_session(items, answers == true),
        cells=cells,
        mistakes=shown(wrong[:MISTAKES]),
        looks=looks,
        reliability=reliability(probabilities.max(1), answers == true) if len(items) else "",
        curves=curves(metrics["epochs"]),
        advice=examine([*evidence.dataset.items, *evidence.test]).advice if recorded else None,
    )
    write_atomic(path, page.encode(errors="replace"))  # a file's name may be no text at all


def _one_of_each(true: np.ndarray, indices: list[int]) -> list[int]:
    """Return indices in rounds: the first of each label, the second of each, and so on."""
    rounds: dict[int, int] = {}
    order = []
    for index in indices:
        rounds[true[index]] = rounds.get(true[index], 0) + 1
        order.append((rounds[true[index]], index))
    return [index for _, index in sorted(order)]


def _by_session(items: list[Sample], right: np.ndarray) -> list[dict]:
    """Return each session's frames and accuracy, the worst first."""
    names = np.array([item.session for item in items])
    rows = [
        {"session": name, "frames": int((names == name).sum()), "accuracy": float(right[names == name].mean())}
        for name in np.unique(names).tolist()
    ]
    return sorted(rows, key=lambda row: row["accuracy"])


def _heats(evidence: TrainingResult, items: list[Sample], class_ids: list[int]) -> list[str] | None:
    """Return frames with what speaks for their answers laid over them; None where the network can't tell."""
    outcome = evidence.outcome
    frames = [evidence.dataset.frames[item.path] for item in items]
    maps = activation_maps(outcome.judged or outcome.network, outcome.contract, frames, class_ids)
    return None if maps is None else [_data_url(_painted(*pair)) for pair in zip(frames, maps, strict=True)]


def _painted(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    picture = frame.copy()
    draw_heat_map(picture, heat)
    return picture


def _data_url(frame: np.ndarray) -> str:
    height, width = frame.shape[:2]
    how = cv2.INTER_AREA if width > SIDE else cv2.INTER_NEAREST  # a small picture's pixels stay what they are
    size = SIDE, min(max(1, round(SIDE * height / width)), 3 * SIDE)
    small = cv2.resize(frame, size, interpolation=how)
    return "data:image/jpeg;base64," + base64.b64encode(cv2.imencode(".jpg", small)[1]).decode()
