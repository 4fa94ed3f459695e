"""Video files: each frame at its own time, and upright."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from teachcam.collect.camera import Camera
from teachcam.collect.recorder import Recorder
from teachcam.collect.video_file import FileClock, read_display_matrix
from teachcam.errors import UserError

DATA = Path(__file__).parents[2] / "data"


def times_of(name: str) -> list[float]:
    with Camera(str(DATA / name)) as camera:
        return [frame.time for frame in camera]


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.webm"])
def test_frames_have_their_own_times(name):
    expected = [number / 30 for number in range(20)] + [20 / 30 + number / 10 for number in range(20)]
    assert times_of(name) == pytest.approx(expected, abs=0.04)


def test_a_wrong_rate_in_the_header_changes_no_time():
    times = times_of("claims_2000fps.ts")
    assert times[-1] == pytest.approx(1.3, abs=0.05)  # older versions of OpenCV do not tell the last times
    assert np.all(np.diff(times) > 0)
    with Camera(str(DATA / "claims_2000fps.ts")) as camera:
        assert camera.fps == 30


def test_timestamps_that_begin_again_go_on():
    assert times_of("restart.ts") == pytest.approx([number / 30 for number in range(80)], abs=0.005)


def test_without_timestamps_the_rate_counts():
    with Camera(str(DATA / "no_timestamps.h264")) as camera:
        times = [frame.time for frame in camera]
        assert times == pytest.approx([number / camera.fps for number in range(40)])


@pytest.mark.parametrize(
    ("timestamps", "times"),
    [
        ([5, 6, 7], [0, 1, 2]),
        ([None, None, None], [0, 0.1, 0.2]),
        ([0, 1, None, 3], [0, 1, 2, 3]),
        ([0, 1, 0, 0], [0, 1, 2, 3]),  # older versions of OpenCV return 0 for the last frames
        ([0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, 5]),
        ([0, 1, 90_000, 90_001], [0, 1, 2, 3]),
        ([-2, -1, 0], [0, 1, 2]),
        ([float("nan"), 1, 2], [0, 0.1, 1.1]),
        ([float("-inf")] * 3, [0, 0.1, 0.2]),
        ([1e300, 1e300], [0, 0.1]),
        ([0, 0, 0.2, 0.2, 0.4, 0.4, 0.6], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),  # in pairs: no drift
        ([0, 0.1, 0.3, 0.2, 0.4], [0, 0.1, 0.3, 0.301, 0.4]),  # in disorder
        ([0, 0.1, 0.2, 600, 600, 600], [0, 0.1, 0.2, 600, 600.1, 600.2]),  # a leap, then no timestamps
    ],
)
def test_the_clock_of_a_file(timestamps, times):
    clock = FileClock(10)
    assert [clock(timestamp) for timestamp in timestamps] == pytest.approx(times)


@pytest.mark.parametrize(("name", "images"), [("claims_2000fps.ts", 7), ("vfr.mp4", 13)])
def test_capture_counts_by_the_frames_own_times(tmp_path, name, images):
    with Camera(str(DATA / name)) as camera, Recorder(camera, tmp_path, "x", fps=5) as recorder:
        recorder.start()
        for frame in camera:
            recorder.add_frame(frame)
    assert recorder.saved["x"] == pytest.approx(images, abs=1)


def write_mp4(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a video whose upper left quarter is white, and change the display matrix in its track header."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32] = 255
    for _ in range(5):
        writer.write(image)
    writer.release()
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes
    a, b, c, d = (value.to_bytes(4, "big", signed=True) for value in (65536 * number for number in matrix))
    content[start : start + 8], content[start + 12 : start + 20] = a + b, c + d
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("matrix", "shape", "corner"),
    [
        ((1, 0, 0, 1), (48, 64), (0, 0)),
        ((-1, 0, 0, 1), (48, 64), (0, -1)),  # a mirrored selfie
        ((1, 0, 0, -1), (48, 64), (-1, 0)),
        ((-1, 0, 0, -1), (48, 64), (-1, -1)),
        ((0, 1, -1, 0), (64, 48), (0, -1)),  # a quarter turn clockwise: a phone held upright
        ((0, -1, 1, 0), (64, 48), (-1, 0)),
        ((0, 1, 1, 0), (64, 48), (0, 0)),
        ((0, -1, -1, 0), (64, 48), (-1, -1)),
    ],
)
def test_a_video_is_shown_as_its_file_says(tmp_path, matrix, shape, corner):
    with Camera(str(write_mp4(tmp_path / "clip.mp4", matrix))) as camera:
        image = camera.read()
    assert image.shape[:2] == shape
    assert [at for at in ((0, 0), (0, -1), (-1, 0), (-1, -1)) if image[at].mean() > 200] == [corner]


def test_a_name_that_is_not_utf8_is_an_error(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.mp4")  # OpenCV would crash
    Path(path).write_bytes(b"x")
    with pytest.raises(UserError, match="is not valid UTF-8: rename it"):
        Camera(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\0\0\0\1moov" + b"\xff" * 16, b"\0\0\0\x10moov\0\0\0\7trak"])
def test_a_file_without_a_matrix_has_none(tmp_path, content):
    (tmp_path / "x.mp4").write_bytes(content)
    assert read_display_matrix(tmp_path / "x.mp4") is None
    assert read_display_matrix(tmp_path / "missing.mp4") is None
