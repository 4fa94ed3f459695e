"""Another camera, and other flips, while a camera is being read. The fake cameras stand for devices."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from conftest import wait_until

from teachcam.collect import live_reader
from teachcam.collect.camera import Camera
from teachcam.collect.synthetic import render
from teachcam.errors import CameraError, CameraTimeout

GATE = "rtsp://user:secret@gate/1"
BRIGHTNESS = {"0": 10, "1": 20, "csi:0": 30, GATE: 40}


class Devices:
    """Fake cameras, which each can be opened once. An image has its camera's brightness, and a white corner.

    Attributes:
        opened: The name and flip of each opening.
        failing: What becomes of a camera: an error that it raises, or "silent" or "hanging".
    """

    def __init__(self):
        self.opened: list[tuple[str, str | None]] = []
        self.open: set[str] = set()
        self.failing: dict[str, object] = {}
        self.hangs = threading.Event()  # set by a hanging read
        self.released = threading.Event()  # ends all hanging reads

    def __call__(self, name, settings):
        self.opened.append((name, settings.flip))
        if isinstance(self.failing.get(name), Exception):
            raise self.failing[name]
        if name in self.open:
            raise CameraError(f"camera {name} is busy")
        self.open.add(name)
        return Device(self, name, settings.flip)


class Device:
    live = True

    def __init__(self, devices: Devices, name: str, flip: str | None):
        self._devices, self._name = devices, name
        self.fps = float(BRIGHTNESS[name])
        self._image = np.full((4, 6, 3), BRIGHTNESS[name], np.uint8)
        self._image[0, -1 if flip == "horizontal" and name == "csi:0" else 0] = 255
        self.flipped = name == "csi:0"

    def read(self):
        failure = self._devices.failing.get(self._name)
        if failure == "hanging":
            self._devices.hangs.set()
            self._devices.released.wait()
        elif failure is not None:
            return None
        threading.Event().wait(0.002)  # its rate
        return self._image

    def close(self):
        self._devices.open.discard(self._name)


@pytest.fixture
def devices():
    devices = Devices()
    yield devices
    devices.released.set()
    wait_until(lambda: not devices.open)


def brightness(image: np.ndarray) -> int:
    return int(image[2, 2, 0])


def test_another_camera_is_read_and_frames_count_on(devices):
    with Camera("0", opener=devices) as camera:
        before = camera.read_frame()
        camera.switch(GATE)
        after = camera.read_frame()
        assert (brightness(before.image), brightness(after.image)) == (10, 40)
        assert after.number > before.number
        assert after.time > before.time
        assert devices.open == {GATE}
        assert camera.fps == 40
        assert camera.source == camera.metadata["camera"] == "rtsp://***@gate/1"
        camera.switch("0")
        camera.switch(camera.full_source)
        assert [name for name, _ in devices.opened] == ["0", GATE, "0"]
    with pytest.raises(CameraError, match="camera 0 is closed"):
        camera.switch("1")


def test_who_waits_for_a_camera_that_hangs_gets_a_frame_of_the_other(devices, monkeypatch):
    monkeypatch.setattr(live_reader, "RELEASE_TIME", 0.05)
    frames = []
    with Camera("0", opener=devices, stall=60) as camera:
        devices.failing["0"] = "hanging"
        devices.hangs.wait()
        number = camera.read_frame().number
        reader = threading.Thread(target=lambda: frames.append(camera.read_frame()))
        reader.start()
        camera.switch("1")
        reader.join(10)
        assert [brightness(frame.image) for frame in frames] == [20]
        assert frames[0].number > number
        devices.released.set()  # the hanging read returns an image after all
        wait_until(lambda: devices.open == {"1"})
        assert brightness(camera.read()) == 20


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (CameraError("camera 1 does not open"), "^camera 1 does not open$"),
        (RuntimeError("driver\nfell over"), "^camera 1: driver"),
        ("silent", r"^camera 1 sent nothing for 1\.5 s: is it connected"),
        ("hanging", r"^camera 1 sent nothing for 1\.5 s: is it connected"),
    ],
)
def test_if_the_other_camera_fails_the_one_before_is_opened_again(devices, monkeypatch, failure, message):
    monkeypatch.setattr(live_reader, "RELEASE_TIME", 0.05)
    devices.failing["1"] = failure
    errors, done = [], threading.Event()

    def read_on():  # as the live loop does
        while not done.is_set():
            try:
                camera.read_frame(wait=0.02)
            except CameraTimeout:
                continue
            except Exception as error:
                errors.append(error)
                return

    with Camera("0", opener=devices, timeout=1.5, stall=0.7) as camera:
        before = camera.read_frame()
        reader = threading.Thread(target=read_on)
        reader.start()
        with pytest.raises(CameraError, match=message):
            camera.switch("1", flip="180")
        frame = camera.read_frame(wait=10)
        done.set()
        reader.join()
        wait_until(lambda: not camera.reconnecting and camera.fps == 10)
        assert not errors
        assert brightness(frame.image) == 10
        assert frame.number > before.number
        assert camera.metadata == {"camera": "0"}
        assert [name for name, _ in devices.opened if name == "0"] == ["0", "0"]
        devices.released.set()
        wait_until(lambda: devices.open == {"0"})
        devices.failing.clear()
        camera.switch("1")
        assert brightness(camera.read()) == 20


def test_a_lost_camera_can_be_left(devices):
    before = set(threading.enumerate())
    with Camera("0", opener=devices) as camera:
        devices.failing["0"] = CameraError("unplugged")
        wait_until(lambda: camera.reconnecting)
        camera.switch("1")
        assert not camera.reconnecting
        assert brightness(camera.read()) == 20
        assert [thread.name for thread in set(threading.enumerate()) - before] == ["read 1"]


def test_a_flip_does_not_open_the_camera_again(devices):
    with Camera("0", opener=devices) as camera:
        for flip, corner in (("horizontal", (0, -1)), ("180", (-1, -1)), ("vertical", (-1, 0)), (None, (0, 0))):
            camera.switch(flip=flip)
            assert (camera.read()[corner] == 255).all()
            assert camera.metadata.get("flip") == camera.flip == flip
        camera.switch("/dev/video0", flip="horizontal")  # another name of it
        camera.switch("1")
        assert (camera.read()[0, -1] == 255).all()
        assert devices.opened == [("0", None), ("1", "horizontal")]
        with pytest.raises(CameraError, match="flip 'over' is unknown"):
            camera.switch(flip="over")


def test_a_frame_that_nobody_has_read_is_flipped_too(devices):
    with Camera("0", opener=devices) as camera:
        devices.failing["0"] = "hanging"
        devices.hangs.wait()  # so no other frame comes
        camera.switch(flip="horizontal")
        assert (camera.read()[0, -1] == 255).all()
        devices.released.set()


def test_a_camera_that_flips_its_images_itself_is_opened_again(devices):
    with Camera("csi:0", opener=devices) as camera:
        assert (camera.read()[0, 0] == 255).all()
        camera.switch(flip="horizontal")
        assert (camera.read()[0, -1] == 255).all()
        assert devices.opened == [("csi:0", None), ("csi:0", "horizontal")]


def test_files_can_not_be_switched(devices, tmp_path):
    with Camera("0", opener=devices) as camera, pytest.raises(CameraError, match="is not a live camera"):
        camera.switch(str(tmp_path))


def test_real_cameras_are_switched():
    with Camera("synthetic:palm?seed=1&size=160x120") as camera:
        camera.switch("synthetic:palm?seed=2&size=160x120")
        image = camera.read().astype(int)
    of_first, of_second = (np.abs(image - render("palm", seed, 1, 160, 120)[0]).mean() for seed in (1, 2))
    assert of_second < of_first / 2  # its room, though the hand may have moved
