"""Streams and video files with any content: they give images or end, without a hang, a crash or growing memory."""

from __future__ import annotations

import io
import itertools
import math
import random
import struct
import subprocess
import sys

import cv2
import numpy as np
from conftest import LABELS, PATIENCE
from hypothesis import example, given
from hypothesis import strategies as st

from robustness.test_damaged_files import damaged, random_damage
from teachcam.collect.network_camera import MjpegCamera
from teachcam.collect.synthetic import render
from teachcam.collect.video_file import FileClock, read_display_matrix
from teachcam.images import encode_jpeg

JPEG = encode_jpeg(np.full((8, 8, 3), 90, np.uint8))
PART = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG + b"\r\n"
pieces = st.sampled_from(
    [PART, JPEG, b"--frame", b"--frame--", b"--", b"\r\n", b"\r\n\r\n", b"\n\n", b"Content-Length: ", b"-1", b"0",
     b"9" * 30, b"9" * 5000, b"99999999", "²".encode("latin-1"), b": ", b"\0" * 70_000, JPEG[:40]]
)  # fmt: skip


@given(st.lists(pieces | st.binary(max_size=40), max_size=20).map(b"".join))
@example(PART * 3)
@example(b"--frame\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n" + JPEG + b"\r\n" + PART)
def test_a_stream_gives_images_or_ends(count, content):
    count("inputs")
    camera = MjpegCamera(io.BytesIO(content))
    images = []
    while (image := camera.read()) is not None:
        images.append(image)
    assert len(images) <= content.count(b"\xff\xd8")
    assert all(image.ndim == 3 for image in images)
    if content == PART * 3:
        assert len(images) == 3


def box(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I4s", (8 + len(content) if size is None else size) % 2**32, kind) + content


kinds = st.sampled_from([b"moov", b"trak", b"tkhd", b"free"])
boxes = st.recursive(
    st.binary(max_size=100),
    lambda inner: st.builds(
        box, kinds, inner | st.lists(inner, max_size=3).map(b"".join), st.none() | st.integers(0, 300)
    ),
    max_leaves=8,
)


@given(boxes | st.lists(boxes, max_size=3).map(b"".join))
@example(b"".join(box(b"moov", b"", 8 * (4000 - number)) for number in range(4000)))
@example(box(b"tkhd", b"\0" * 8 + struct.pack(">Q", 2**63) + bytes(80), 1))
@example(box(b"moov", b"", 0) * 3)
def test_a_video_says_how_it_is_turned_or_nothing(tmp_path_factory, count, content):
    count("inputs")
    path = tmp_path_factory.mktemp("video") / "x.mp4"
    path.write_bytes(content)
    matrix = read_display_matrix(path)
    assert matrix is None or (len(matrix) == 4 and {abs(value) for value in matrix} == {0, 1})


@given(st.floats(0, 1000) | st.just(0.0), st.lists(st.none() | st.floats() | st.floats(0, 20), max_size=60))
@example(1e-310, [None, None])
def test_the_clock_of_a_file_only_goes_forward(count, fps, timestamps):
    count("inputs")
    clock = FileClock(fps)
    times = [clock(timestamp) for timestamp in timestamps]
    assert all(math.isfinite(time) for time in times)
    assert all(later > earlier for earlier, later in itertools.pairwise(times))


READ_VIDEOS = """
import sys
from teachcam.collect.camera import Camera
from teachcam.errors import CameraError
for line in sys.stdin:
    try:
        with Camera(line.strip()) as camera:
            count = sum(frame.image.ndim == 3 for frame in camera)
        said = f"{count} frames"
    except CameraError as error:
        said = "refused" if len(str(error).splitlines()) == 1 else repr(error)
    except Exception as error:
        said = repr(error)
    print(said, flush=True)
"""


def test_a_damaged_video_gives_frames_or_is_refused(tmp_path, count, rounds):
    """In another process, because FFmpeg may crash."""
    rng, path = random.Random(2), tmp_path / "x.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for image in render(LABELS[0], 0, 12, 64, 48):
        writer.write(image)
    writer.release()
    content = path.read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-c", READ_VIDEOS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, cwd=tmp_path,
    )  # fmt: skip
    with process:
        for number in range(rounds(30, 1500)):
            count("faults")
            how = random_damage(rng) if number else []
            path.write_bytes(damaged(content, how))
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            said = process.stdout.readline().strip()
            assert said == "refused" or said.endswith("frames"), (how, said, process.poll())
            assert number or said == "12 frames"
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
