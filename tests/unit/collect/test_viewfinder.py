"""The capture window's keys, on a clock of the test. Real keys in a real window: tests/integration/test_capture.py."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from teachcam.collect.camera import Frame
from teachcam.collect.dataset import list_samples
from teachcam.collect.recorder import Recorder
from teachcam.collect.ui.viewfinder import FIRST_REPEAT, NEXT_REPEAT, Viewfinder

IMAGE = np.full((480, 640, 3), 90, np.uint8)


@pytest.fixture
def recorder(tmp_path):
    camera = SimpleNamespace(metadata={}, live=True, reconnecting=False, on_each_frame=lambda function: None)
    with Recorder(camera, tmp_path, "a", 0) as recorder:
        recorder.camera = camera
        yield recorder


def test_a_recording_lasts_as_long_as_its_key_is_held(recorder, tmp_path):
    viewfinder = Viewfinder(recorder.camera, recorder, ["a"])
    last = 10 + 0.95 * FIRST_REPEAT + 0.95 * NEXT_REPEAT  # when the key is repeated for the last time
    for now, key in ((10, "r"), (10 + 0.95 * FIRST_REPEAT, "r"), (last, "r"), (last + 0.95 * NEXT_REPEAT, "")):
        viewfinder.press(key, None, now)
        assert recorder.recording
        assert recorder.add_frame(Frame(IMAGE, 0, now, now))
    viewfinder.press("", None, last + 1.05 * NEXT_REPEAT)
    assert not recorder.recording
    assert len(list_samples(tmp_path)) == 4
    viewfinder.press("r", None, 20)
    viewfinder.press("", None, 20 + 1.05 * FIRST_REPEAT)  # it was only touched
    assert not recorder.recording


def test_a_recording_by_the_space_bar_does_not_end_by_itself(recorder):
    viewfinder = Viewfinder(recorder.camera, recorder, ["a"])
    viewfinder.press(" ", None, 10)
    for key in ("", "r", ""):
        viewfinder.press(key, None, 10_000)
        assert recorder.recording
    viewfinder.press(" ", None, 10_000)
    assert not recorder.recording


@pytest.mark.parametrize("key", ["m", "h"])
def test_a_key_shows_something_and_hides_it_again(recorder, key):
    viewfinder = Viewfinder(recorder.camera, recorder, ["a"])
    before = viewfinder.draw(IMAGE)
    viewfinder.press(key, None, 0)
    assert (viewfinder.draw(IMAGE) != before).any()
    viewfinder.press(key, None, 0)
    assert (viewfinder.draw(IMAGE) == before).all()
