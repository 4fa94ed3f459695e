"""Record labeled frames into data/<label>/.

    python collect/capture.py --label thumbs_up
    python collect/capture.py --label thumbs_up --headless --count 40 --fps 5
    python collect/capture.py --label door_open --camera clip.mp4 --fps 2

In the window: hold still, SPACE starts and stops a session, q ends. Without a window, recording starts at once.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cv2

from collect import cli
from collect.camera import Camera, Frame
from collect.dataset import Session, check_label
from collect.window import Window, put_text


def main(argv: list[str] | None = None) -> int:
    """Record until `--count`, the end of a file, or the user ends it; print what was saved."""
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--label", required=True, help="what the frames show: the name of their folder")
    parser.add_argument("--camera", default="0", help="0, http://..., rtsp://..., a file, a folder, synthetic")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the dataset's folder")
    parser.add_argument("--count", type=int, help="stop after this many frames (headless: 40 unless a file ends)")
    parser.add_argument("--fps", type=float, default=5.0, help="frames recorded a second, 0 for every frame")
    parser.add_argument("--headless", action="store_true", help="no window: start recording at once")
    options = parser.parse_args(argv)
    if options.count is not None and options.count < 1:
        parser.error("--count: at least 1")
    if not 0 <= options.fps < float("inf"):
        parser.error("--fps: 0 or more")
    check_label(options.label)

    with Camera(options.camera) as camera:
        if options.count is None and options.headless and camera.live:
            options.count = 40
        record = record_headless if options.headless else record_in_window
        saved = record(camera, options)
    print(f"{saved} frames of {options.label} in {options.data / options.label}")
    return 0


class Recorder:
    """Chooses frames at a rate and saves them, a session at a time."""

    def __init__(self, data: Path, label: str, camera: str, fps: float):
        self._data, self._label, self._camera = data, label, camera
        self._period = 1 / fps if fps else 0.0
        self._session: Session | None = None
        self._due = 0.0
        self._last = 0.0  # time of the frame before
        self.saved = 0

    @property
    def recording(self) -> bool:
        """Whether a session is open."""
        return self._session is not None

    def start(self) -> None:
        """Begin a new session."""
        time_now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self._session = Session(self._data, self._label, camera=self._camera, time=time_now)
        self._due = float("-inf")

    def stop(self) -> None:
        """End the session and note it."""
        if self._session is not None:
            session, self._session = self._session, None
            session.close()

    def offer(self, frame: Frame) -> bool:
        """Save the frame if a session is open and one is due; say whether it was."""
        interval, self._last = frame.time - self._last, frame.time
        # The frame nearest to the due time is taken: a camera's jitter would else cost every other frame.
        early = 0.5 * min(interval, self._period)
        if self._session is None or frame.time < self._due - early:
            return False
        self._session.save(frame.image)
        # The grid of due times stays where it is, unless the camera fell a whole period behind it.
        late = frame.time - self._due
        self._due = self._period + (frame.time if late > self._period else self._due)
        self.saved += 1
        return True


def record_headless(camera: Camera, options) -> int:
    """Record one session at once; return how many frames were saved."""
    recorder = Recorder(options.data, options.label, camera.source, options.fps)
    recorder.start()
    try:
        for frame in camera:
            if recorder.offer(frame) and sys.stderr.isatty():
                print(f"\r{recorder.saved} of {options.count or 'all'} ", end="", file=sys.stderr)
            if recorder.saved == options.count:
                break
    finally:
        recorder.stop()
        if sys.stderr.isatty():
            print(file=sys.stderr)
    return recorder.saved


def record_in_window(camera: Camera, options) -> int:
    """Show the camera and record while the user says so; return how many frames were saved."""
    recorder = Recorder(options.data, options.label, camera.source, options.fps)
    try:
        with Window(f"teachcam: record {options.label}") as window:
            for frame in camera:
                recorder.offer(frame)
                picture = frame.image.copy()
                state = "REC" if recorder.recording else "SPACE records, q ends"
                put_text(picture, f"{options.label}: {recorder.saved}   {state}")
                if recorder.recording:
                    cv2.circle(picture, (picture.shape[1] - 30, 30), 12, (0, 0, 255), -1, cv2.LINE_AA)
                key = window.show(picture)
                if key == " ":
                    recorder.stop() if recorder.recording else recorder.start()
                if window.closed or recorder.saved == options.count:
                    break
    finally:
        recorder.stop()
    return recorder.saved


if __name__ == "__main__":
    cli.run(main)
