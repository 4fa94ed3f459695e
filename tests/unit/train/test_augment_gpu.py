"""Augmentation where the network runs shows what was drawn as OpenCV does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import LABELS
from test_train import learner_on, scene

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.augment.cpu import Augmentation
from teachcam.train.augment.foreground import Foregrounds, segment_foregrounds
from teachcam.train.augment.gpu import DeviceAugmentation
from teachcam.train.augment.params import AugmentParams

SIZE = (96, 96)


@pytest.fixture(scope="module")
def augmentation() -> Augmentation:
    """Frames of 4:3 whose fronts are known."""
    frames = [
        np.ascontiguousarray(np.pad(f, ((0, 0), (18, 18), (0, 0)), "edge")) for n in ("bar", "disc") for f in scene(n)
    ]
    return Augmentation(frames, segment_foregrounds(frames, np.repeat(np.arange(2), 8), ["a"] * 16))


def without_noise(plan: AugmentParams) -> bool:
    changes = [*plan.changes, *([plan.backdrop.change] if plan.backdrop else [])]
    return not any(change.noise for change in changes)


@pytest.mark.parametrize("order", ["RGB", "BGR", "GRAY"])
def test_it_shows_the_same_pictures(order, augmentation):
    contract = Contract(labels=("a", "b"), input_size=SIZE, color_order=order)
    rngs = [np.random.default_rng(seed) for seed in range(120)]
    plans = [augmentation.plan(index % 16, rng) for index, rng in enumerate(rngs[:90])]
    plans += [augmentation.sample_outlier(rng) for rng in rngs[90:]]
    plans = [plan for plan in plans if without_noise(plan)]
    assert {(bool(plan.changes), plan.front is None) for plan in plans} == {(True, True), (False, False), (False, True)}
    expected = np.stack([preprocess(augmentation.show(plan), contract) for plan in plans]).astype(int)
    shown = DeviceAugmentation(augmentation, contract, torch.device("cpu"))(plans, SIZE)
    assert (shown.shape, shown.dtype) == (expected.shape, torch.uint8)
    differences = np.abs(expected - shown.numpy()).mean((1, 2, 3))
    others = np.abs(expected - np.roll(expected, 1, 0)).mean((1, 2, 3))
    assert np.median(differences) < 5  # of 255: it interpolates before the change, not after it
    assert np.quantile(differences, 0.95) < 0.3 * np.median(others)


def test_noise_is_as_strong():
    gray = np.full((*SIZE, 3), 128, np.uint8)
    augmentation = Augmentation([gray], Foregrounds.none(1))
    device = DeviceAugmentation(augmentation, Contract(labels=("a",), input_size=SIZE), torch.device("cpu"))
    plans = [augmentation.plan(0, np.random.default_rng(seed)) for seed in range(200)]
    plans = [plan for plan in plans if len(plan.changes) == 1 and plan.changes[0].noise and not plan.changes[0].cover]
    assert len(plans) > 10
    torch.manual_seed(0)
    for plan in plans:
        one, other = augmentation.show(plan)[40:56, 40:56], device([plan], SIZE)[0, 40:56, 40:56].numpy()
        assert one.astype(float).std((0, 1)) == pytest.approx(other.astype(float).std((0, 1))[::-1], rel=0.3, abs=0.4)


def test_no_augmentation_is_preprocess_at_every_size():
    frames = [np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8) for seed in range(3)]
    augmentation = Augmentation(frames, Foregrounds.none(3), "none")
    contract = Contract(labels=("a",), input_size=SIZE)
    device = DeviceAugmentation(augmentation, contract, torch.device("cpu"))
    plans = [augmentation.plan(index, np.random.default_rng(0)) for index in (2, 0)]
    assert (device(plans, SIZE).numpy() == [preprocess(frames[2], contract), preprocess(frames[0], contract)]).all()
    assert device(plans, (64, 64)).shape == (2, 64, 64, 3)


def test_training_goes_the_same_way(dataset, monkeypatch):
    """The whole of it on the CPU, as a GPU would do it."""
    changes = {"epochs": 2, "dropout": 0.0, "sizes": (0.3, 0.5)}
    _, usual = learner_on(dataset).fit("partial", changes)
    monkeypatch.setattr(DeviceAugmentation, "fits", staticmethod(lambda *_: True))
    learner = learner_on(dataset)
    network, lines = learner.fit("partial", changes)
    assert network.head.out_features == len(LABELS)
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in usual], rel=0.3)
