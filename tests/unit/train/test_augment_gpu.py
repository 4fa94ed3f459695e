"""GpuAugmentation gives the images that Augmentation gives with OpenCV."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import LABELS
from test_augment import scene
from test_train import make_trainer

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.augment.cpu import Augmentation
from teachcam.train.augment.foreground import Foregrounds, segment_foregrounds
from teachcam.train.augment.gpu import GpuAugmentation
from teachcam.train.augment.params import AugmentParams

SIZE = (96, 96)


@pytest.fixture(scope="module")
def augmentation() -> Augmentation:
    """Images of aspect ratio 4:3 with segmented foregrounds."""
    images = [image for label in ("bar", "disc") for image in scene(label)]
    images = [np.ascontiguousarray(np.pad(image, ((0, 0), (18, 18), (0, 0)), "edge")) for image in images]
    return Augmentation(images, segment_foregrounds(images, np.repeat(np.arange(2), 8), ["a"] * 16))


def has_noise(params: AugmentParams) -> bool:
    transforms = [*params.transforms, *([params.background.transform] if params.background else [])]
    return any(transform.noise_sigma for transform in transforms)


@pytest.mark.parametrize("color_order", ["RGB", "BGR", "GRAY"])
def test_gpu_and_cpu_give_the_same_images(color_order, augmentation):
    contract = Contract(labels=("a", "b"), input_size=SIZE, color_order=color_order)
    rngs = [np.random.default_rng(seed) for seed in range(120)]
    batch = [augmentation.sample(index % 16, rng) for index, rng in enumerate(rngs[:90])]
    batch += [augmentation.sample_outlier(rng) for rng in rngs[90:]]
    batch = [params for params in batch if not has_noise(params)]
    kinds = {(bool(params.transforms), params.foreground is None) for params in batch}
    assert kinds == {(True, True), (False, False), (False, True)}
    expected = np.stack([preprocess(augmentation.apply(params), contract) for params in batch]).astype(int)
    images = GpuAugmentation(augmentation, contract, torch.device("cpu"))(batch, SIZE)
    assert (images.shape, images.dtype) == (expected.shape, torch.uint8)
    differences = np.abs(expected - images.numpy()).mean((1, 2, 3))
    to_another_image = np.abs(expected - np.roll(expected, 1, 0)).mean((1, 2, 3))
    assert np.median(differences) < 5  # of 255; the GPU resizes before the transform, the CPU after it
    assert np.quantile(differences, 0.95) < 0.3 * np.median(to_another_image)


def test_gpu_noise_is_as_strong_as_cpu_noise():
    gray = np.full((*SIZE, 3), 128, np.uint8)
    augmentation = Augmentation([gray], Foregrounds.empty(1))
    on_gpu = GpuAugmentation(augmentation, Contract(labels=("a",), input_size=SIZE), torch.device("cpu"))
    batch = [augmentation.sample(0, np.random.default_rng(seed)) for seed in range(200)]
    batch = [params for params in batch if len(params.transforms) == 1 and has_noise(params)]
    batch = [params for params in batch if not params.transforms[0].occluder]
    assert len(batch) > 10
    torch.manual_seed(0)
    for params in batch:
        bgr, rgb = augmentation.apply(params)[40:56, 40:56], on_gpu([params], SIZE)[0, 40:56, 40:56].numpy()
        assert bgr.astype(float).std((0, 1)) == pytest.approx(rgb.astype(float).std((0, 1))[::-1], rel=0.3, abs=0.4)


def test_without_augmentation_the_result_is_that_of_preprocess():
    images = [np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8) for seed in range(3)]
    augmentation = Augmentation(images, Foregrounds.empty(3), "none")
    contract = Contract(labels=("a",), input_size=SIZE)
    on_gpu = GpuAugmentation(augmentation, contract, torch.device("cpu"))
    batch = [augmentation.sample(index, np.random.default_rng(0)) for index in (2, 0)]
    assert (on_gpu(batch, SIZE).numpy() == [preprocess(images[2], contract), preprocess(images[0], contract)]).all()
    assert on_gpu(batch, (64, 64)).shape == (2, 64, 64, 3)


@pytest.mark.slow
def test_training_with_gpu_augmentation_gives_about_the_same_losses(dataset, monkeypatch):
    """GpuAugmentation runs on the CPU here; the code is the same on a GPU."""
    changes = {"epochs": 2, "dropout": 0.0, "progressive_resize": (0.3, 0.5)}
    _, expected = make_trainer(dataset).fit("partial", changes)
    monkeypatch.setattr(GpuAugmentation, "fits", staticmethod(lambda *_: True))
    network, lines = make_trainer(dataset).fit("partial", changes)
    assert network.head.out_features == len(LABELS)
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in expected], rel=0.3)
