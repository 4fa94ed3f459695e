"""Test that smoothing removes flicker and still reports a change after the same time at any frame rate."""

from __future__ import annotations

import pytest

from teachcam.live.prediction import UNKNOWN, Prediction, Smoother, to_prediction


def predict(label: str, confidence: float = 0.9, threshold: float = 0.0) -> Prediction:
    """Return a prediction of "a" or "b"."""
    probabilities = {name: confidence if name == label else 1 - confidence for name in "ab"}
    return to_prediction(probabilities, threshold)


def smooth(smoother: Smoother, labels: str, fps: float = 30.0, start: float = 0.0) -> str:
    """Return the smoothed labels of frames that alone are predicted as `labels`, one letter per frame."""
    return "".join(smoother(predict(label), start + index / fps).label for index, label in enumerate(labels))


def test_single_wrong_frames_do_not_change_the_label():
    labels = "aaaaabaaaabaaaaa"
    assert smooth(Smoother(0.0, 0.15), labels) == "a" * len(labels)
    assert smooth(Smoother(0.0, 0.0), labels) == labels


@pytest.mark.parametrize("fps", [10, 30, 120])
def test_a_change_is_reported_after_the_same_time_at_any_frame_rate(fps):
    smoothed = smooth(Smoother(0.0, 0.15), "a" * fps + "b" * fps, fps)
    assert smoothed == "a" * smoothed.count("a") + "b" * smoothed.count("b")
    assert 0 <= smoothed.count("a") / fps - 1 <= 0.15 + 1 / fps


def test_frames_from_before_a_pause_do_not_count():
    smoother = Smoother(0.0, 0.15)
    smooth(smoother, "a" * 30)
    assert smooth(smoother, "b", start=5.0) == "b"


def test_smoothed_probabilities_add_up_to_1():
    smoother = Smoother(0.0, 0.15)
    for index in range(100):
        smoothed = smoother(predict("ab"[index % 7 == 0]), index / 30)
        assert sum(smoothed.probabilities.values()) == pytest.approx(1)
        assert smoothed.confidence == max(smoothed.probabilities.values()) == smoothed.probabilities[smoothed.label]


def test_a_confidence_below_the_threshold_is_unknown():
    smoother = Smoother(0.7, 0.15)
    assert smoother(predict("a", 0.9), 0.0).label == "a"
    assert [smoother(predict("a", 0.6), index / 30).label for index in range(1, 60)][-1] == UNKNOWN


def test_with_min_hold_a_new_label_is_reported_only_after_it_has_lasted():
    labels = "a" * 10 + "b" * 5 + "a" * 10 + "b" * 20
    smoothed = smooth(Smoother(0.0, 0.0, min_hold=0.2), labels)
    assert smoothed[:25] == "a" * 25
    assert smoothed[25:] == "a" * 6 + "b" * 14  # 0.2 s are six frames
    smoother = Smoother(0.0, 0.0, min_hold=1.0)
    smoother(predict("a"), 0.0)
    held = smoother(predict("b", 0.8), 0.1)
    assert (held.label, held.confidence) == ("a", pytest.approx(0.2))
