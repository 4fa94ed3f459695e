"""Steady answers: no flicker, little delay, by the frames' own clock."""

from __future__ import annotations

import pytest

from teachcam.live.prediction import UNKNOWN, Smoother, to_prediction


def says(label: str, confidence: float = 0.9, threshold: float = 0.0):
    other = "b" if label == "a" else "a"
    return to_prediction(
        {name: confidence if name == label else 1 - confidence for name in sorted((label, other))}, threshold
    )


def labels(smoother: Smoother, text: str, fps: float = 30.0, start: float = 0.0) -> str:
    return "".join(smoother(says(label), start + index / fps).label for index, label in enumerate(text))


def test_a_wrong_frame_now_and_then_changes_nothing():
    text = "aaaaabaaaabaaaaa"
    assert labels(Smoother(0.0, 0.15), text) == "a" * len(text)
    assert labels(Smoother(0.0, 0.0), text) == text


@pytest.mark.parametrize("fps", [10, 30, 120])
def test_a_real_change_is_told_after_the_same_time_at_any_rate(fps):
    answers = labels(Smoother(0.0, 0.15), "a" * fps + "b" * fps, fps)
    assert answers == "a" * answers.count("a") + "b" * answers.count("b")
    assert 0 <= answers.count("a") / fps - 1 <= 0.15 + 1 / fps


def test_what_was_seen_before_a_pause_is_forgotten():
    smoother = Smoother(0.0, 0.15)
    labels(smoother, "a" * 30)
    assert labels(smoother, "b", start=5.0) == "b"


def test_probabilities_stay_probabilities():
    smoother = Smoother(0.0, 0.15)
    for index in range(100):
        answer = smoother(says("ab"[index % 7 == 0]), index / 30)
        assert sum(answer.probabilities.values()) == pytest.approx(1)
        assert answer.confidence == max(answer.probabilities.values()) == answer.probabilities[answer.label]


def test_below_the_threshold_it_is_unknown():
    smoother = Smoother(0.7, 0.15)
    assert smoother(says("a", 0.9), 0.0).label == "a"
    assert [smoother(says("a", 0.6), index / 30).label for index in range(1, 60)][-1] == UNKNOWN


def test_min_hold_lets_a_label_count_only_after_it_has_held():
    text = "a" * 10 + "b" * 5 + "a" * 10 + "b" * 20
    answers = labels(Smoother(0.0, 0.0, min_hold=0.2), text)
    assert answers[:25] == "a" * 25
    assert answers[25:] == "a" * 6 + "b" * 14  # 0.2 s are six frames
    held = Smoother(0.0, 0.0, min_hold=1.0)
    held(says("a"), 0.0)
    answer = held(says("b", 0.8), 0.1)
    assert (answer.label, answer.confidence) == ("a", pytest.approx(0.2))
