"""The verdicts of `make bench`: who is ahead, and where nothing may be said."""

from __future__ import annotations

import importlib
import sys

import pytest
from conftest import ROOT


@pytest.fixture
def comparison(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks/peers"))
    yield importlib.import_module("comparison")
    for name in ("comparison", "catalog"):
        del sys.modules[name]


@pytest.fixture
def compare(comparison):
    return lambda *trainings: comparison.compare({"trainings": list(trainings), "loops": []})[1:]


def row(peer: str, accuracy: float, claim: float, seconds: float = 100, fold: int = 0) -> dict:
    return {
        "peer": peer, "data": "rooms", "fold": fold, "seed": 0,
        "accuracy": accuracy, "claim": claim, "seconds": seconds,
    }  # fmt: skip


def test_a_line_says_who_is_ahead_and_in_how_many_trainings(compare):
    lines = compare(row("teachcam", 0.95, 0.93), row("fastai", 0.90, 0.99, seconds=50))
    assert lines == [
        "",
        "**fastai `fine_tune(4)`**",
        "",
        "- rooms, accuracy in the test rooms: 0.950 against 0.900 (1 training): ahead.",
        "- rooms, error of the accuracy that it reports: 0.020 against 0.090 (1 training): ahead.",
        "- rooms, seconds to train: 100 against 50: behind.",
    ]


def test_what_trainings_disagree_on_is_the_same_and_so_are_times_within_a_tenth(compare):
    ours = row("teachcam", 0.95, 0.95, 100), row("teachcam", 0.80, 0.80, 100, fold=1)
    theirs = row("fastai", 0.85, 0.85, 92), row("fastai", 0.84, 0.84, 92, fold=1)
    lines = compare(*ours, *theirs)
    assert "- rooms, accuracy in the test rooms: 0.875 against 0.845 (2 trainings): the same." in lines
    assert "- rooms, seconds to train: 100 against 92: the same." in lines


def test_seconds_to_a_lower_accuracy_do_not_count(compare):
    lines = compare(row("teachcam", 0.90, 0.90, 10), row("fastai", 0.95, 0.95, 100))
    assert lines[-1] == "- rooms, seconds to train to the accuracy of the peer: not reached: behind."


def test_only_trainings_that_both_finished_are_compared_and_no_other_row_takes_the_place_of_the_default(compare):
    failed = {**row("teachcam", 0, 0), "failed": "out of memory"}
    assert compare(failed, row("teachcam-ridge", 0.9, 0.9), row("fastai", 0.8, 0.8)) == []
    assert compare(row("teachcam", 0.9, 0.9), row("fastai", 0.8, 0.8, fold=1)) == []


def test_an_advantage_that_the_measurement_gives_is_not_counted(compare):
    name = "teachable-machine"
    lines = compare(row("teachcam", 0.9, 0.9, 10), row(name, 0.8, 0.8, 100))
    assert any(
        line.startswith("- rooms, seconds to train: 10 against 100: not comparable. A browser") for line in lines
    )


def test_chance_is_told_from_error(comparison):
    far = {"accuracy": 0.9, "accuracy_interval": (0.85, 0.95), "claim": 0.7, "claim_interval": (0.6, 0.8)}
    near = {**far, "claim": 0.84, "claim_interval": (0.79, 0.89)}
    assert [comparison.is_in_interval(one) for one in (far, near)] == [False, False]
    assert [comparison.agrees(one) for one in (far, near)] == [False, True]
