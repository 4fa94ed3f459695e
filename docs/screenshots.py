"""Make the pictures in docs/images/ with the synthetic camera, from the run that `make demo` left.

    make demo
    python docs/screenshots.py

Needs Xvfb and xdotool for the capture window, and Chromium for the page and the report.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import ImageGrab
from playwright.sync_api import Page, expect, sync_playwright

from teachcam.collect.hands import LABELS, SECONDS_PER_LABEL

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
DEMO = ROOT / "runs" / "demo"
RUN = DEMO / "runs" / "latest"
JPEG_QUALITY = 82  # keeps each picture under 150 kB
VIDEO_FPS = 30


def main() -> None:
    """Make all pictures."""
    if not (RUN / "model.onnx").exists():
        sys.exit(f"no demo in {DEMO}: run make demo first")
    IMAGES.mkdir(exist_ok=True)
    videos_as_grid(sorted(DEMO.glob("live_*.mp4"))[:3], IMAGES / "hands.jpg")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(DEMO / "data", Path(folder) / "data")
        capture_window(Path(folder), IMAGES / "capture.jpg")
        with sync_playwright() as playwright:
            chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            report(browser.new_page(viewport={"width": 1000, "height": 1000}), IMAGES / "report.jpg")
            live_page(browser.new_page(viewport={"width": 900, "height": 700}), Path(folder), IMAGES / "live_page.jpg")
            studio(browser.new_page(), Path(folder), IMAGES / "studio.jpg", IMAGES / "studio_small.jpg")
            browser.close()
    for path in sorted(IMAGES.iterdir()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


def videos_as_grid(videos: list[Path], out: Path) -> None:
    """Write one row for each annotated video: a frame from the middle of each label's time."""
    order = [LABELS.index(label) for label in ("thumbs_up", "thumbs_down", "palm", "none")]
    rows = []
    for path in videos:
        video = cv2.VideoCapture(str(path))
        images = []
        while (image := video.read()[1]) is not None:
            images.append(image)
        middles = [images[round((index + 0.5) * SECONDS_PER_LABEL * VIDEO_FPS)] for index in order]
        rows.append(np.hstack([cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA) for image in middles]))
    save(np.vstack(rows), out)


def capture_window(folder: Path, out: Path) -> None:
    """Write the capture window while it records."""
    command = [ROOT / "collect" / "capture.py", "--label", "thumbs_up", "thumbs_down", "palm", "none"]
    command += ["--camera", "synthetic:thumbs_up?seed=4"]
    with virtual_screen(640, 480) as display:
        environment = {**os.environ, "DISPLAY": display}
        with running(command, folder, env=environment):
            find = ["xdotool", "search", "--sync", "--onlyvisible", "--name", "teachcam"]
            window = subprocess.run(find, env=environment, check=True, capture_output=True, text=True).stdout.split()[0]
            subprocess.run(["xdotool", "windowfocus", "--sync", window], env=environment, check=True)
            subprocess.run(["xdotool", "key", "space"], env=environment, check=True)
            time.sleep(2.5)  # half a dozen images are recorded then
            screen = np.asarray(ImageGrab.grab(xdisplay=display).convert("RGB"))
            save(screen[..., ::-1], out)


def report(page: Page, out: Path) -> None:
    """Write three parts of the demo's report, one below the other."""
    page.goto((RUN / "report.html").resolve().as_uri())
    parts = [page.locator(part).screenshot() for part in ("header", "#confusion", "#heat-maps")]
    images = [cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR) for part in parts]
    save(np.vstack(images), out)


def live_page(page: Page, folder: Path, out: Path) -> None:
    """Write the live page while the camera shows a hand."""
    command = [ROOT / "live" / "run.py", "--model", RUN / "model.onnx", "--camera", "synthetic?seed=102"]
    with running([*command, "--headless", "--http", "0"], folder) as process:
        page.goto(next(match[0] for line in process.stderr if (match := re.search(r"http://\S+", line))))
        page.wait_for_timeout(1000 * 2 * SECONDS_PER_LABEL * len(LABELS))  # two rounds of the labels fill the history
        expect(page.locator("#label")).to_contain_text("thumbs_up", timeout=10_000)
        page.wait_for_timeout(600)
        page.screenshot(path=out, type="jpeg", quality=JPEG_QUALITY, full_page=True)


def studio(page: Page, folder: Path, large: Path, small: Path) -> None:
    """Write the studio of the demo's images while the camera shows a hand: on a desktop, and on smaller screens."""
    command = [ROOT / "teach" / "studio.py", "--camera", "synthetic?seed=102", "--http", "0"]
    with running(command, folder) as process:
        page.goto(next(match[0] for line in process.stderr if (match := re.search(r"http://\S+", line))))
        expect(page.locator("#accuracy")).to_contain_text("in places that it had not seen", timeout=120_000)
        page.wait_for_timeout(1000 * SECONDS_PER_LABEL * len(LABELS))
        expect(page.locator("#label")).to_contain_text("thumbs_up", timeout=10_000)
        views = [_view(page, *view) for view in ((1440, "light"), (1024, "dark"), (390, "light"), (390, "dark"))]
    save(views[0], large)
    save(np.hstack(views[1:]), small)


def _view(page: Page, width: int, color_scheme: str) -> np.ndarray:
    """Return how a page looks on a screen, uint8 [900, width, 3] BGR."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=color_scheme)
    page.wait_for_timeout(600)
    return cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)


@contextmanager
def virtual_screen(width: int, height: int) -> Iterator[str]:
    """Run an Xvfb of that size; yield its DISPLAY."""
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", f"{width}x{height}x24"]
    server = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as numbers:
        display = f":{numbers.readline().strip()}"
    try:
        yield display
    finally:
        server.terminate()
        server.wait()


@contextmanager
def running(command: list, folder: Path, **options) -> Iterator[subprocess.Popen]:
    """Run one of the project's commands, and interrupt it at the end."""
    arguments = [sys.executable, *map(str, command)]
    process = subprocess.Popen(
        arguments, cwd=folder, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def save(image: np.ndarray, out: Path) -> None:
    """Write a JPEG; `image` is uint8 [H, W, 3] BGR."""
    out.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())


if __name__ == "__main__":
    main()
