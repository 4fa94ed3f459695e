"""Metrics and calibration."""

from __future__ import annotations

import json

import numpy as np
import pytest

from teachcam.calibration import (
    confidence_bins,
    expected_calibration_error,
    fit_temperature,
    fit_threshold,
    softmax,
)
from teachcam.train.metrics import Predictions, confidence_interval, evaluate


def calibration_error(probabilities: np.ndarray, class_ids: np.ndarray) -> float:
    predictions = Predictions(probabilities, class_ids)
    return expected_calibration_error(predictions.confidences, predictions.correct)


def test_the_fitted_temperature_calibrates_overconfident_logits():
    rng = np.random.default_rng(0)
    calibrated = np.log(softmax(rng.normal(0, 1, (3000, 3))))
    class_ids = np.array([rng.choice(3, p=row) for row in np.exp(calibrated)])
    overconfident = 3 * calibrated
    assert calibration_error(softmax(overconfident), class_ids) > 0.15
    temperature = fit_temperature(overconfident, class_ids)
    assert temperature == pytest.approx(3, rel=0.1)
    assert calibration_error(softmax(overconfident, temperature), class_ids) < 0.03
    assert fit_temperature(np.empty((0, 3)), np.empty(0, int)) == pytest.approx(1)
    all_wrong = (overconfident[:12].argmax(1) + 1) % 3
    assert fit_temperature(overconfident[:12], all_wrong) < 3  # twelve images are too few to move it further


def test_95_of_100_images_reach_the_threshold():
    probabilities = softmax(np.random.default_rng(0).normal(0, 2, (1000, 3)))
    assert (probabilities.max(1) >= fit_threshold(probabilities)).mean() == pytest.approx(0.95, abs=0.002)
    assert fit_threshold(probabilities[:5]) == 0


def test_confidence_bins_and_their_mean_gap():
    confidences, correct = np.array([0.55, 0.95, 0.95, 1.0]), np.array([True, True, False, True])
    low, high = confidence_bins(confidences, correct)
    assert (low.index, low.confidence, low.accuracy, low.num_images) == (5, 0.55, 1.0, 1)
    assert (high.index, high.num_images) == (9, 3)
    assert high.accuracy == pytest.approx(2 / 3)
    expected = (0.45 + 3 * (2.9 / 3 - 2 / 3)) / 4
    assert expected_calibration_error(confidences, correct) == pytest.approx(expected)


def test_the_confidence_interval_widens_as_sessions_differ():
    correct = np.array([True] * 90 + [False] * 10)
    independent = confidence_interval(correct, [str(number) for number in range(100)])
    assert independent == pytest.approx((0.826, 0.945), abs=1e-3)  # Wilson's interval for 90 of 100
    rooms = [f"room{number // 10}" for number in range(100)]
    spread_out = confidence_interval(correct[np.random.default_rng(0).permutation(100)], rooms)
    in_one_room = confidence_interval(correct, rooms)
    assert in_one_room[1] - in_one_room[0] > 1.5 * (spread_out[1] - spread_out[0])
    low, high = confidence_interval(np.ones(60, bool), ["a"] * 30 + ["b"] * 30)  # two rooms count as two observations
    assert (low, high) == (pytest.approx(0.165, abs=1e-3), 1.0)
    elevens = [f"room{number % 11}" for number in range(110)]
    square = 2.228**2  # of Student's quantile for ten degrees of freedom, as tables have it
    low, high = confidence_interval(np.ones(110, bool), elevens)  # eleven rooms count as eleven observations
    assert (low, high) == (pytest.approx(11 / (11 + square), abs=1e-3), 1.0)


def test_precision_recall_and_confusion_matrix():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.2, 0.8, 0.0]])
    evaluation = evaluate(Predictions(probabilities, np.array([0, 1, 1])), ("a", "b", "c"), ["s", "s", "t"])
    assert evaluation.accuracy == pytest.approx(2 / 3)
    assert evaluation.confusion == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    a, b, c = evaluation.per_label.values()
    assert (a.num_images, a.precision, a.recall) == (1, 0.5, 1.0)
    assert (b.num_images, b.precision, b.recall) == (2, 1.0, 0.5)
    assert (c.num_images, c.precision, c.recall) == (0, None, None)
    assert evaluation.scenes == ["s", "t"]


def test_without_images_nothing_is_measured():
    evaluation = evaluate(Predictions(np.empty((0, 2)), np.empty(0, int)), ("a", "b"), [])
    assert (evaluation.accuracy, evaluation.num_images) == (None, 0)
    assert (evaluation.confidence_interval, evaluation.expected_calibration_error) == (None, None)


def test_metrics_json_holds_the_evaluation(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert {"accuracy", "num_images", "confidence_interval", "expected_calibration_error"} < set(metrics["validation"])
    rows = metrics["validation"]["per_label"].values()
    assert sum(row["num_images"] for row in rows) == metrics["validation"]["num_images"]
