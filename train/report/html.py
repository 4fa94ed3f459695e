"""Write the report of a run: one HTML file that opens without a network."""

from __future__ import annotations

import base64
from dataclasses import asdict
from pathlib import Path

import cv2
import jinja2
import numpy as np

from teachcam.calibration import confidence_bins
from teachcam.collect.inspection import inspect_measured
from teachcam.drawing import draw_heat_map
from teachcam.files import write_atomic
from teachcam.images import encode_jpeg
from teachcam.train.engine.result import Result
from teachcam.train.metrics import Metrics
from teachcam.train.report.gradcam import activation_maps
from teachcam.train.report.plots import reliability_diagram, training_curves

MAX_MISTAKES, MAX_HEAT_MAPS = 12, 6  # images shown
MAX_WRONG_IN_CELL, MAX_CORRECT_IN_CELL = 40, 12  # images behind a number of the confusion matrix
IMAGE_WIDTH = 200  # pixels
MAX_INSPECTED = 5000  # images of the dataset: the inspection compares each with every other


def write_report(path: Path, metrics: Metrics, result: Result) -> None:
    """Write the report of a run.

    Args:
        path: HTML file, in the run's folder.
        metrics: Metrics of the run.
        result: Result of the same run.
    """
    predictions, wrong = result.predictions, result.wrong
    bins = confidence_bins(predictions.confidences, predictions.correct) if result.validation else []
    inspected = metrics.split == "scenes" and len(result.data.dataset.samples) <= MAX_INSPECTED
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    page = template.render(
        name=path.parent.name,
        folder=path.parent,
        run=metrics,
        per_scene=_accuracy_per_scene(result),
        cells=_confusion_cells(metrics, result),
        mistakes=_figures(result, wrong[:MAX_MISTAKES]),
        heat_maps=_heat_map_sections(result),
        reliability=reliability_diagram(bins) if bins else "",
        curves=training_curves(metrics.epochs),
        advice=inspect_measured(result.data.dataset.measurements).advice if inspected else None,
    )
    write_atomic(path, page.encode(errors="replace"))  # a file name may hold bytes that are not text


def _figures(result: Result, indices: list[int]) -> list[dict]:
    """Return validation images as data URLs, each with its prediction."""
    images = [data_url(_image(result, index)) for index in indices]
    predictions = [asdict(result.image_prediction(index)) for index in indices]
    return [{**prediction, "image": image} for prediction, image in zip(predictions, images, strict=True)]


def _confusion_cells(metrics: Metrics, result: Result) -> list[dict]:
    """Return the images behind each number of the confusion matrix that is not 0, the most confident first."""
    true, predicted = result.predictions.class_ids, result.predictions.predicted
    cells = []
    for true_id, predicted_id in np.argwhere(metrics.validation.confusion).tolist():
        indices = [
            index
            for index in result.predictions.by_confidence
            if (true[index], predicted[index]) == (true_id, predicted_id)
        ]
        shown = indices[: MAX_CORRECT_IN_CELL if true_id == predicted_id else MAX_WRONG_IN_CELL]
        figures = _figures(result, shown)
        cells.append({"true_id": true_id, "predicted_id": predicted_id, "count": len(indices), "figures": figures})
    return cells


def _heat_map_sections(result: Result) -> list[tuple[str, list[dict]]]:
    """Return a title and images with heat maps, for right and for wrong predictions; [] if there are no heat maps."""
    predictions, network = result.predictions, result.validated_network or result.network
    right = [index for index in predictions.by_confidence if predictions.correct[index]]
    right = _alternate_labels(predictions.class_ids, right)
    sections = []
    for title, indices in (("Right predictions", right), ("Wrong predictions", result.wrong)):
        indices = indices[:MAX_HEAT_MAPS]
        images = [_image(result, index) for index in indices]
        class_ids = [int(predictions.predicted[index]) for index in indices]
        heat_maps = activation_maps(network, result.contract, images, class_ids)
        if heat_maps is None:
            return []
        overlays = [data_url(_overlay(image, heat)) for image, heat in zip(images, heat_maps, strict=True)]
        figures = _figures(result, indices)
        sections.append((title, [{**one, "heat_map": url} for one, url in zip(figures, overlays, strict=True)]))
    return sections


def _alternate_labels(class_ids: np.ndarray, indices: list[int]) -> list[int]:
    """Reorder indices: the first of each label, then the second of each, and so on."""
    seen: dict[int, int] = {}
    ranked = []
    for index in indices:
        seen[class_ids[index]] = seen.get(class_ids[index], 0) + 1
        ranked.append((seen[class_ids[index]], index))
    return [index for _, index in sorted(ranked)]


def _accuracy_per_scene(result: Result) -> list[dict]:
    """Return the number of images and the accuracy of each validation scene, the lowest accuracy first."""
    of_scenes: dict[str, list[bool]] = {}
    for sample, is_correct in zip(result.validation, result.predictions.correct.tolist(), strict=True):
        of_scenes.setdefault(sample.scene, []).append(is_correct)
    rows = [
        {"scene": scene, "num_images": len(correct), "accuracy": float(np.mean(correct))}
        for scene, correct in sorted(of_scenes.items())
    ]
    return sorted(rows, key=lambda row: row["accuracy"])


def _image(result: Result, index: int) -> np.ndarray:
    return result.data.dataset.images[result.validation[index].path]


def _overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    image = image.copy()
    draw_heat_map(image, heat)
    return image


def data_url(image: np.ndarray, width: int = IMAGE_WIDTH) -> str:
    """Return an image as a JPEG in a data URL, for the `src` of an <img> element.

    Args:
        image: Image, uint8 [H, W, 3], BGR.
        width: Width in pixels. The height keeps the aspect ratio, up to three times the width.
    """
    interpolation = cv2.INTER_AREA if image.shape[1] > width else cv2.INTER_NEAREST  # small images keep sharp pixels
    height = min(max(1, round(width * image.shape[0] / image.shape[1])), 3 * width)
    small = cv2.resize(image, (width, height), interpolation=interpolation)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(small)).decode()
