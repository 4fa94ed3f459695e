"""Augmentation: transforms of images, segmented foregrounds, and other backgrounds."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from conftest import assert_one_line_error, call_here

from teachcam.train.augment.augmentation import Augmentation, apply_color_jitter, apply_transform
from teachcam.train.augment.foreground import segment_foregrounds
from teachcam.train.augment.params import sample_color_jitter, sample_image_transform


def scene(label: str, num_images: int = 8, wall: int = 90, size: int = 112) -> list[np.ndarray]:
    """Images of a red disc or bar, or of nothing, at random places in front of a striped wall."""
    rng = np.random.default_rng(len(label))
    images = []
    for _ in range(num_images):
        image = np.full((size, size, 3), wall, np.uint8)
        image[::8] += 40
        x, y = (int(value) for value in rng.integers(25, size - 25, 2))
        if label == "disc":
            cv2.circle(image, (x, y), 16, (20, 20, 230), -1)
        elif label == "bar":
            cv2.rectangle(image, (x - 7, y - 25), (x + 7, y + 25), (20, 20, 230), -1)
        images.append(image)
    return images


def test_a_transform_changes_a_copy_and_keeps_shape_and_dtype():
    image = np.full((48, 64, 3), 100, np.uint8)
    transformed = apply_transform(image, sample_image_transform(np.random.default_rng(0)))
    assert (transformed.shape, transformed.dtype) == (image.shape, np.uint8)
    assert (transformed != image).any()
    assert (image == 100).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_a_transform_never_flips_an_image(axis):
    """A thumb up must never become a thumb down, nor a left hand a right one."""
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    image = np.broadcast_to((ramp[:, None] if axis == 0 else ramp)[..., None], (64, 64, 3)).copy()
    for seed in range(300):
        transformed = apply_transform(image, sample_image_transform(np.random.default_rng(seed))).mean(axis=2)
        profile = transformed.mean(axis=1 - axis)[8:-8]
        assert np.corrcoef(profile, np.arange(len(profile)))[0, 1] > 0, seed


def test_color_jitter_keeps_the_order_of_levels():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    for seed in range(50):
        levels = apply_color_jitter(ramp, sample_color_jitter(np.random.default_rng(seed)))[0].astype(int)
        assert (np.diff(levels, axis=0) >= 0).all()
        assert (np.diff(levels, axis=0) > 0).mean() > 0.3


def test_moving_objects_are_segmented_from_a_still_background():
    labels = ["bar", "disc", "nothing"]
    images = [image for label in labels for image in scene(label)]
    class_ids = np.repeat(np.arange(3), 8)
    foregrounds = segment_foregrounds(images, class_ids, ["a"] * 24)
    assert foregrounds.is_background_label.tolist() == [False] * 16 + [True] * 8
    assert np.abs(foregrounds.backgrounds[0].astype(int) - scene("nothing")[0]).mean() < 1
    for image, mask in zip(images[:16], foregrounds.masks[:16], strict=True):
        red = image[..., 2] > 200
        assert ((mask > 0.5) & red).sum() > 0.9 * red.sum()
        assert ((mask > 0.5) & ~red).sum() < 0.25 * red.sum()
    again = segment_foregrounds(images, class_ids, ["a"] * 24)
    assert all((mask == other).all() for mask, other in zip(foregrounds.masks[:16], again.masks[:16], strict=True))


@pytest.mark.parametrize(
    ("labels", "sessions"),
    [(["disc"], "a"), (["disc", "bar"], "ab"), (["nothing", "empty"], "aa")],
    ids=["one label", "two places", "labels about the background"],
)
def test_nothing_is_segmented_if_the_background_may_be_the_label(labels, sessions):
    walls = {"a": 90, "b": 200}
    images = [image for label, place in zip(labels, sessions, strict=True) for image in scene(label, wall=walls[place])]
    class_ids = np.repeat(np.arange(len(labels)), 8)
    foregrounds = segment_foregrounds(images, class_ids, [place for place in sessions for _ in range(8)])
    assert not foregrounds.backgrounds
    assert set(foregrounds.masks) == {None}
    assert not foregrounds.is_background_label.any()


def test_foregrounds_are_composited_onto_other_backgrounds():
    images = [image for label in ("bar", "disc") for image in scene(label)]
    class_ids = np.repeat(np.arange(2), 8)
    augmentation = Augmentation(images, segment_foregrounds(images, class_ids, ["a"] * 16))
    assert augmentation.has_outliers  # both labels show an object: a bare background belongs to neither
    with_none = Augmentation(images, augmentation.foregrounds, labels=("none", "bar"))
    assert not with_none.has_outliers  # although the images of `none` show an object, too
    rng = np.random.default_rng(0)
    assert augmentation.apply(augmentation.sample_outlier(rng)).shape == images[0].shape
    augmented = [augmentation(3, rng) for _ in range(60)]
    same_background = [apply_transform(images[3], sample_image_transform(rng)) for _ in range(60)]
    spread, plain = (np.mean([image.std((0, 1)).mean() for image in part]) for part in (augmented, same_background))
    assert spread > plain + 5  # clutter is more colorful than the wall
    images += scene("nothing")
    with_background_label = Augmentation(images, segment_foregrounds(images, np.repeat(np.arange(3), 8), ["a"] * 24))
    assert not with_background_label.has_outliers
    assert with_background_label(20, rng).shape == images[0].shape


def test_show_augment_writes_an_image_and_trains_nothing(dataset, tmp_path):
    result = call_here("train/finetune.py", "--data", dataset, "--show-augment", "seen.jpg", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert cv2.imread(str(tmp_path / "seen.jpg")).shape == (6 * 224, 8 * 224, 3)
    assert not (tmp_path / "runs").exists()
    result = call_here("train/finetune.py", "--data", dataset, "--show-augment", "seen.txt", cwd=tmp_path)
    assert_one_line_error(result, "ends in .png or .jpg")
