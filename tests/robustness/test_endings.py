"""SIGTERM to commands with every sink open, at the moments that could leave a lock taken: they end, with all closed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import cv2
import pytest
from conftest import PATIENCE, ROOT, wait_until

from robustness.conftest import SOAK
from robustness.test_signals import catches
from teachcam.collect.dataset import list_samples
from teachcam.images import read_image

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no such signals")]
CAMERA = "synthetic?seed=1&fps=30&size=160x120"
MOSQUITTO = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")

# python -c RUNNER CLASS NUMBER COMMAND...: runs a command, and sends SIGTERM when the main thread has just taken the
# lock of a Condition for the NUMBER-th time on behalf of an object of that class.
RUNNER = """
import os, runpy, signal, sys, threading
name, number, sys.argv = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
enter, main = threading.Condition.__enter__, threading.get_ident()
def interrupted(self):
    global number
    result = enter(self)
    frame, depth = sys._getframe(1), 0
    while threading.get_ident() == main and frame is not None and depth < 4:
        if any(base.__name__ == name for base in type(frame.f_locals.get("self")).__mro__):
            number -= 1
            if number == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            break
        frame, depth = frame.f_back, depth + 1
    return result
threading.Condition.__enter__ = interrupted
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def receiver() -> Iterator[str]:
    """The address of a server that takes what --post sends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture(scope="module")
def broker(tmp_path_factory) -> Iterator[int]:
    """The port of an MQTT broker. Without mosquitto nobody listens there."""
    pytest.importorskip("paho.mqtt.enums")
    port = free_port()
    if MOSQUITTO is None:
        yield port
        return
    configuration = tmp_path_factory.mktemp("broker") / "mosquitto.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([MOSQUITTO, "-c", configuration], stderr=subprocess.DEVNULL)
    wait_until(lambda: is_open(port))
    yield port
    process.kill()
    process.wait()


@pytest.fixture
def commands(trained, receiver, broker) -> dict[str, list[object]]:
    """What is run, each in a folder of its own, with all sinks that it can have. Nothing ends by itself."""
    live = ["live/run.py", "--model", trained / "model.onnx", "--camera", CAMERA, "--json", "--http", 0, "--watch",
            "--record", "video.mp4", "--save-uncertain", "uncertain", "--post", receiver, "--post-image",
            "--mqtt", f"mqtt://127.0.0.1:{broker}/here", "--on", "palm=true"]  # fmt: skip
    return {
        "live": [*live, "--headless"],
        "window": live,
        "studio": ["teach/studio.py", "--camera", CAMERA, "--http", 0],
        "teach": ["teach/teach.py", "--camera", CAMERA, "--label", "a", "b", "--delay", 0, "--examples", 6, "--place",
                  "here", "--out", "model.onnx", "--json"],
        "capture": ["collect/capture.py", "--camera", CAMERA, "--label", "a", "b", "--headless", "--fps", 0, "--delay",
                    0, "--max-frames", 5000],
    }  # fmt: skip


@contextlib.contextmanager
def running(command: list[object], folder: Path) -> Iterator[subprocess.Popen]:
    """Run a command; its output goes to the files stdout and stderr."""
    with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen([sys.executable, *map(str, command)], cwd=folder, stdout=stdout, stderr=stderr)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def page_of(folder: Path) -> str | None:
    """Return the address of the page, once the command has printed it."""
    lines = (folder / "stderr").read_text().splitlines()
    return next((line.rpartition(" ")[2] for line in lines if line.startswith(("the page: ", "the studio: "))), None)


def watch_page(folder: Path) -> None:
    """Open the streams of the page, as a browser does, and leave them open."""
    url = page_of(folder)

    def read(name: str) -> None:
        with contextlib.suppress(OSError), urlopen(url + name, timeout=30) as stream:
            while stream.read(1000):
                pass

    for name in ("stream", "events") if url else ():
        threading.Thread(target=read, args=(name,), daemon=True).start()


def assert_ended_well(process: subprocess.Popen, folder: Path) -> None:
    """Wait for the end, and check what is left."""
    process.wait(PATIENCE)
    said = (folder / "stderr").read_text()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "Exception" not in said
    assert not list(folder.rglob("*.tmp"))
    for path in folder.rglob("*.jpg"):
        read_image(path)
    if (folder / "video.mp4").exists():
        assert cv2.VideoCapture(str(folder / "video.mp4")).read()[0], said
    if (folder / "data").is_dir() and any((folder / "data").glob("*/*.jpg")):
        list_samples(folder / "data")
    if '"label"' in (text := (folder / "stdout").read_text()):
        for line in text.splitlines():
            if line.startswith("{"):
                json.loads(line)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("live", "Broadcast"),
        ("live", "JsonLines"),
        ("live", "Video"),
        ("live", "Mqtt"),
        ("live", "Webhook"),
        ("live", "UncertainFrames"),
        ("live", "LiveReader"),
        pytest.param("window", "LiveWindow", marks=pytest.mark.display),
        ("studio", "Broadcast"),
        ("studio", "LiveReader"),
        ("teach", "Recorder"),
        ("teach", "Teacher"),
        ("teach", "JsonLines"),
        ("capture", "LiveReader"),
    ],
)
def test_a_signal_while_a_lock_is_taken(commands, tmp_path, count, request, command, name):
    if command == "window":
        request.getfixturevalue("display")
    for number in (1, 3) if SOAK else (3,):
        count("faults")
        folder = tmp_path / str(number)
        folder.mkdir()
        script, *arguments = commands[command]
        with running(["-c", RUNNER, name, number, ROOT / script, *arguments], folder) as process:
            assert_ended_well(process, folder)


@pytest.mark.skipif(not SOAK, reason="takes an hour: make soak")
@pytest.mark.display
def test_signals_at_random_moments(commands, tmp_path, count, display):
    """TEACHCAM_SIGNALS=N sends N of them: half while the command starts, half while it runs and the page is watched."""
    rng, seconds = random.Random(), []
    for number in range(int(os.environ.get("TEACHCAM_SIGNALS", "500"))):
        count("faults")
        name = list(commands)[number % len(commands)]
        folder = tmp_path / str(number)
        folder.mkdir()
        script, *arguments = commands[name]
        with running([ROOT / script, *arguments], folder) as process:
            wait_until(lambda one=process: catches(one, signal.SIGTERM))
            if rng.random() < 0.5:
                wait_until(lambda one=process, where=folder: one.poll() is not None or has_begun(where))
                watch_page(folder)
                time.sleep(rng.uniform(0.0, 3.0))
            else:
                time.sleep(rng.uniform(0.0, 4.0))
            sent = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert_ended_well(process, folder)
            seconds.append((time.monotonic() - sent, name))
        shutil.rmtree(folder)
    seconds.sort()
    print(f"{len(seconds)} signals; seconds until the end: median {seconds[len(seconds) // 2][0]:.2f}, the longest", *[
        f"{name} {duration:.2f}" for duration, name in seconds[-5:]
    ])  # fmt: skip


def has_begun(folder: Path) -> bool:
    """Return whether a command has opened what it opens: results came, the page is there, or images were saved."""
    return bool((folder / "stdout").read_text() or page_of(folder) or next(iter(folder.glob("data/*/*.jpg")), None))
