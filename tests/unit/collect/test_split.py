"""Splits: which images are for validation, for the test and for training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from teachcam.collect.dataset import Sample
from teachcam.collect.split import (
    folds_by_scene,
    leave_one_out,
    merge_into_folds,
    random_folds,
    split_at_random,
    split_by_scene,
    take_test_scenes,
)


def samples_of(**labels: dict[str, int]) -> list[Sample]:
    """Samples by label, session and number of images."""
    return [
        Sample(f"{label}/{session}_{number:04d}.jpg", label, session)
        for label, sessions in labels.items()
        for session, num_images in sessions.items()
        for number in range(num_images)
    ]


@pytest.mark.parametrize("seed", range(10))
def test_no_scene_is_on_both_sides(seed):
    rng = np.random.default_rng(seed)
    rooms = [f"room{number}" for number in range(8)]
    samples = samples_of(
        **{label: {room: int(rng.integers(5, 40)) for room in rooms if rng.random() < 0.8} for label in "abcd"}
    )
    split = split_by_scene(samples, seed=seed)
    assert not {sample.session for sample in split.train} & {sample.session for sample in split.validation}
    assert sorted(map(str, split.train + split.validation)) == sorted(map(str, samples))
    assert not split.labels_split_by_time
    for label in "abcd":
        num_validation, num_images = (
            sum(sample.label == label for sample in part) for part in (split.validation, samples)
        )
        assert 0.2 * num_images <= num_validation < num_images


def test_a_label_with_one_scene_is_split_by_time_with_a_gap():
    split = split_by_scene(samples_of(up={"a": 50}, down={"b": 20, "c": 20}))
    assert split.labels_split_by_time == ("up",)
    validation = [sample.path for sample in split.validation if sample.label == "up"]
    train = [sample.path for sample in split.train if sample.label == "up"]
    assert (train[-1], validation[0], len(validation)) == ("up/a_0034.jpg", "up/a_0040.jpg", 10)
    odd_gap = split_by_scene(samples_of(up={"a": 7}, down={"b": 7, "c": 7})).train
    assert [sample.path for sample in odd_gap if sample.label == "up"][-1] == "up/a_0004.jpg"
    assert split.validation_scenes in (["b"], ["c"])


def test_the_only_scene_of_a_label_stays_in_training():
    split = split_by_scene(samples_of(none={"place1": 60}, up={"place1": 60, "place2": 60, "place3": 60}))
    assert {sample.session for sample in split.train if sample.label == "up"} >= {"place1"}
    assert split.labels_split_by_time == ("none",)


def test_the_only_image_of_a_label_stays_in_training():
    split = split_by_scene(samples_of(a={"x": 1}, b={"y": 2}))
    assert {sample.label for sample in split.train} == {"a", "b"}


def test_a_random_split_leaves_images_of_each_label_on_both_sides():
    for fraction in (0.01, 0.9):
        split = split_at_random(samples_of(a={"s": 3}, b={"s": 40}, c={"s": 1}), fraction)
        assert {sample.label for sample in split.train} == {"a", "b", "c"}
        assert {sample.label for sample in split.validation} == {"a", "b"}


def test_each_scene_is_for_validation_in_one_fold():
    rooms = {f"room{number}": 10 for number in range(7)}
    samples = samples_of(a=rooms, b=rooms, c={"room0": 5})
    splits = folds_by_scene(samples, 3)
    validation_scenes = [session for split in splits for session in split.validation_scenes]
    assert sorted(validation_scenes) == [f"room{number}" for number in range(1, 7)]  # c has room0 only
    for split in splits:
        assert not {sample.session for sample in split.train} & {sample.session for sample in split.validation}
        assert {sample.label for sample in split.train} == {"a", "b", "c"}


def test_test_scenes_are_taken_by_name_or_by_fraction():
    samples = samples_of(a={"x": 4, "y": 4}, b={"x": 4, "z": 4})
    rest, taken = take_test_scenes(samples, ["x"])
    assert {sample.session for sample in taken} == {"x"}
    assert {sample.session for sample in rest} == {"y", "z"}
    rest, taken = take_test_scenes(samples, ["0.3"])
    assert taken
    assert not {sample.session for sample in rest} & {sample.session for sample in taken}
    for wanted, message in ((["w"], "no scene 'w'"), (["x", "y"], "no scene left to train on")):
        with pytest.raises(ValueError, match=message):
            take_test_scenes(samples, wanted)


def test_a_session_stands_for_its_scene():
    samples = [replace(sample, scene="kitchen") for sample in samples_of(a={"x": 4}, b={"y": 4})]
    samples += samples_of(a={"v": 4}, b={"w": 4})
    _, taken = take_test_scenes(samples, ["x"])
    assert {sample.session for sample in taken} == {"x", "y"}


def test_each_scene_is_left_out_once_and_a_label_of_one_scene_by_time():
    rooms = {f"room{number}": 10 for number in range(4)}
    samples = samples_of(a=rooms, b=rooms, c={"room0": 20})
    splits = leave_one_out(samples)
    assert [split.validation_scenes for split in splits] == [["room1"], ["room2"], ["room3"]] + [[]] * 5
    assert {split.labels_split_by_time for split in splits} == {("c",)}
    by_time = [[sample.path for sample in split.validation] for split in splits[3:]]
    assert by_time[0] == [f"c/room0_{number:04d}.jpg" for number in range(4)]
    assert [path for part in by_time for path in part] == [sample.path for sample in samples if sample.label == "c"]
    for split in splits:
        assert {sample.label for sample in split.train} == {"a", "b", "c"}
        assert len(split.train) + len(split.validation) == len(samples)


def test_one_scene_is_divided_by_time():
    samples = samples_of(a={"x": 10}, b={"x": 7})
    splits = leave_one_out(samples)
    assert sorted(str(sample.path) for split in splits for sample in split.validation) == sorted(
        str(sample.path) for sample in samples
    )
    assert all(split.labels_split_by_time == ("a", "b") for split in splits)
    assert leave_one_out(samples_of(a={"x": 1}, b={"y": 1})) == []


def test_folds_at_random_hold_each_image_once():
    samples = samples_of(a={"x": 11}, b={"x": 50})
    splits = random_folds(samples)
    assert len(splits) == 5
    assert {sample for split in splits for sample in split.validation} == set(samples)
    assert sum(len(split.validation) for split in splits) == len(samples)
    assert random_folds(samples) == splits != random_folds(samples, seed=1)


def test_merged_folds_are_balanced_and_keep_every_label():
    rooms = {f"room{number}": 10 for number in range(6)}
    samples = samples_of(a=rooms, b={"room0": 10, "room1": 10}, c=rooms)
    folds = merge_into_folds(samples, leave_one_out(samples), 2)
    assert [len(fold.validation) for fold in folds] == [70, 70]
    for fold in folds:
        assert {sample.label for sample in fold.train} == {"a", "b", "c"}
        assert not {sample.scene for sample in fold.train} & {sample.scene for sample in fold.validation}
    one = samples_of(a={"x": 4, "y": 4}, b={"y": 4, "z": 4, "x": 1})
    assert len(merge_into_folds(one, leave_one_out(one), 1)) == 0
