"""A small synthetic dataset, a run trained on it, and ways to call the commands."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import ImageGrab

if "PYTEST_XDIST_WORKER" in os.environ:  # each core has a test; more threads than cores took half as long again
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from teachcam import cli
from teachcam.collect.dataset import Session
from teachcam.collect.synthetic import render

ROOT = Path(__file__).resolve().parent.parent
LABELS = ("palm", "thumbs_down", "thumbs_up")
REAL_DATA = ROOT.parent / "shared" / "data"  # real recordings, where a machine has them
SMALL = ("--backbone", "squeezenet1_1", "--image-size", "64")  # takes a tenth of the time, where any network will do
PATIENCE = 900.0  # seconds until what would wait for ever is a failure, on the busiest machine; no measure of speed


for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # under nohup, and tests send these signals to commands
        signal.signal(number, handler)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS = {  # what a marker's tests need, and whether this machine has it
    "display": ("Xvfb and xdotool", bool(shutil.which("Xvfb") and shutil.which("xdotool"))),
    "browser": ("Chromium", bool(CHROMIUM)),
    "real_data": ("the real recordings", REAL_DATA.is_dir()),
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of workers for `-n auto`: one more than cores, because tests wait for processes and cameras."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests whose marker asks for what this machine does not have."""
    for item in items:
        for marker, (what, available) in NEEDS.items():
            if item.get_closest_marker(marker) and not available:
                item.add_marker(pytest.mark.skip(reason=f"needs {what}"))


def call(*command: object, cwd: Path, **options) -> subprocess.CompletedProcess:
    """Run `python COMMAND` as a user would, from `cwd`; a command's path is given from the project's root."""
    script, *arguments = map(str, command)
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **options,
    )


def call_here(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    """Do what `call` does in this process, which has torch already: its import is most of a command's time."""
    main = importlib.import_module("teachcam." + script[:-3].replace("/", ".")).main
    stdout, stderr, before = io.StringIO(), io.StringIO(), Path.cwd()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            cli.run(lambda: main([*map(str, arguments)]))
    except SystemExit as end:
        return subprocess.CompletedProcess(script, end.code, stdout.getvalue(), stderr.getvalue())
    finally:
        os.chdir(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def assert_one_line_error(result: subprocess.CompletedProcess, *words: str) -> None:
    """Exit code 2, and the last thing said is one line with `words` in it; no traceback."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last


def wait_until(condition, seconds: float = PATIENCE) -> None:
    """Wait for what the test needs. A shorter limit would only measure how busy the machine is."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def widgets_in(panel) -> list:
    """Return a notebook panel, and all widgets in it."""
    widgets = [panel]
    for widget in widgets:
        widgets += getattr(widget, "children", ())
    return widgets


def find_widget(panel, text: str):
    """Return the widget of a notebook panel that shows this text: as its description, or while it is empty."""
    for widget in widgets_in(panel):
        if text in (getattr(widget, "description", None), getattr(widget, "placeholder", None)):
            return widget
    raise AssertionError(f"no widget shows {text!r}")


def texts_in(panel) -> str:
    """Return what a notebook panel says in its labels and its HTML, a line each."""
    return "\n".join(widget.value for widget in widgets_in(panel) if type(widget).__name__ in ("Label", "HTML"))


def finish(function, *arguments):
    """Return what a call returns, as a test does that fails if the call waits for ever."""
    outcome: Future = Future()

    def call_it() -> None:
        try:
            outcome.set_result(function(*arguments))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=call_it, daemon=True).start()
    return outcome.result(PATIENCE)


class Clock:
    """Time that goes on when a test says so. It takes the place of the name `time` in the module under test."""

    def __init__(self):
        self.now = 0.0  # seconds

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def see(page, where: str, text: str, seconds: float = PATIENCE) -> None:
    """Wait until that part of a browser's page begins with `text`."""
    try:
        wait_until(lambda: page.locator(where).inner_text().startswith(text), seconds)
    except AssertionError:
        raise AssertionError(f"{where} shows {page.locator(where).inner_text()!r} in place of {text!r}") from None


def record(data: Path, seeds, labels=LABELS, frames: int = 4) -> Path:
    """Write one session a label and seed, a fifth of a second between frames."""
    for seed in seeds:
        for label in labels:
            session = Session(data, label, camera="render")
            for image in render(label, seed, frames * 6, 320, 240)[::6]:
                session.save(image)
    return data


@pytest.fixture(autouse=True, scope="session")
def messages_on_stderr() -> None:
    """Print what teachcam logs on stderr, as every command does."""
    cli.log_to_stderr()


@pytest.fixture(autouse=True, scope="session")
def teachers_of_normal_priority() -> Iterator[None]:
    """Let a teacher learn with the priority of its test: with a lower one it waits for all other programs."""
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError):  # Debian's Python, on which CI runs the camera tests, can't teach
            patch.setattr("teachcam.teach.teacher.lower_thread_priority", lambda nice: None)
        yield


def made_once(tmp_path_factory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder of one name that all workers share. The first to ask fills it; the others wait."""
    import filelock  # which Debian's Python, on which CI runs the camera tests, does not have

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / f"shared-{name}"
    with filelock.FileLock(f"{folder}.lock"):
        if not folder.exists():
            being_made = base / f"shared-{name}.unfinished"
            shutil.rmtree(being_made, ignore_errors=True)
            being_made.mkdir()
            make(being_made)
            being_made.rename(folder)
    return folder


@pytest.fixture(scope="session")
def package_path(tmp_path_factory) -> str:
    """A folder for PYTHONPATH that holds `teachcam`, for Pythons that it is not installed in."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "teachcam").mkdir()
    for path in (
        *(ROOT / "teachcam").iterdir(),
        *(ROOT / name for name in ("collect", "train", "export", "live", "teach")),
    ):
        (folder / "teachcam" / path.name).symlink_to(path)
    return str(folder)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """Five sessions of each of three labels, four frames each. Not to be changed: copy it."""
    return made_once(tmp_path_factory, "dataset", lambda folder: record(folder / "data", range(5))) / "data"


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    """The backbone of teaching. It remembers the features of each image, for 20 ms each: all tests learn the same."""
    from teachcam.teach.backbone import Backbone

    class Remembering(Backbone):
        known: ClassVar[dict[bytes, np.ndarray]] = {}

        def features(self, image: np.ndarray) -> np.ndarray:
            key = hashlib.sha256(image).digest()
            if key not in self.known:
                self.known[key] = super().features(image)
            return self.known[key].copy()

    return Remembering(tmp_path_factory.mktemp("backbone"), "cpu")


@pytest.fixture(scope="session")
def trained(dataset, tmp_path_factory) -> Path:
    """A finished run: checkpoint.pt, metrics.json, report.html and model.onnx. Not to be changed: copy it."""
    from teachcam.export import to_onnx
    from teachcam.train import finetune

    def train(home: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(home)
            options = ["--data", str(dataset), "--out", "runs/first", *SMALL, "--strategy", "head", "--no-refit"]
            assert finetune.main(options) == 0
            assert to_onnx.main([]) == 0

    return made_once(tmp_path_factory, "trained", train) / "runs" / "first"


@pytest.fixture
def run_copy(trained, tmp_path) -> Path:
    """A copy of the finished run, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / "copy"))


class Display:
    """A virtual screen, and real keys for the windows on it."""

    def __init__(self):
        self._window = ""

    def wait_for_window(self, title: str) -> None:
        """Return when a window of that title shows a photo, and has the keyboard."""
        find = ["xdotool", "search", "--sync", "--onlyvisible", "--name", title]
        found = subprocess.run(find, check=True, capture_output=True, text=True, timeout=PATIENCE)
        self._window = found.stdout.split()[0]
        wait_until(lambda: self._grab().getcolors(256) is None)
        self._focus()

    def press(self, key: str, pictures: int = 3) -> None:
        """Press one key, and wait until the window has shown so many other pictures: then it has seen the key."""
        self._focus()  # without a window manager, nobody else gives it back
        before = self._picture()
        subprocess.run(["xdotool", "key", key], check=True, timeout=PATIENCE)
        for _ in range(pictures):
            wait_until(lambda old=before: self._picture() != old)
            before = self._picture()

    @contextlib.contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Hold one key down; the screen's keyboard repeats it."""
        subprocess.run(["xdotool", "keydown", key], check=True, timeout=PATIENCE)
        yield
        subprocess.run(["xdotool", "keyup", key], check=True, timeout=PATIENCE)

    def _focus(self) -> None:
        subprocess.run(["xdotool", "windowfocus", "--sync", self._window], check=True, timeout=PATIENCE)

    def _picture(self) -> bytes:
        return self._grab().tobytes()

    def _grab(self):
        return ImageGrab.grab(xdisplay=os.environ["DISPLAY"])


@pytest.fixture
def display(monkeypatch) -> Iterator[Display]:
    """A screen of its own under Xvfb."""
    reader, writer = os.pipe()
    server = subprocess.Popen(  # without -noreset it begins anew when nobody is connected, even as a window opens
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1024x768x24", "-noreset"],
        pass_fds=[writer], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writer)
    with os.fdopen(reader) as numbers:
        monkeypatch.setenv("DISPLAY", f":{numbers.readline().strip()}")
    yield Display()
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def chromium():
    """A browser without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        new_page = browser.new_page

        def new_patient_page(**options):
            page = new_page(**options)
            page.set_default_timeout(1000 * PATIENCE)
            return page

        browser.new_page = new_patient_page
        yield browser
        browser.close()
