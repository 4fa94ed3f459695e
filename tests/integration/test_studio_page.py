"""The studio's page in a real browser: the whole way, a second page, a killed server, a full disk."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LABELS, PATIENCE, ROOT, call, see, wait_until

from teachcam.collect.dataset import list_samples, read_places
from teachcam.collect.hands import SECONDS_PER_LABEL, label_at
from teachcam.collect.synthetic import read_number
from teachcam.images import read_image

pytestmark = [pytest.mark.slow, pytest.mark.browser]


class Served:
    """`live/studio.py` on a synthetic room, and a browser's page of it."""

    def __init__(self, folder: Path, seed: int = 1, port: int = 0):
        camera = f"synthetic?seed={seed}&numbered=1"
        command = [sys.executable, str(ROOT / "live/studio.py"), "--camera", camera, "--http", str(port)]
        self._process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        self.url = re.search(r"http://\S+", self._process.stderr.readline())[0]

    @property
    def port(self) -> int:
        return int(re.search(r":(\d+)", self.url.partition("//")[2])[1])

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self._process.stderr.close()

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=PATIENCE)


@pytest.fixture
def serve(tmp_path):
    """A function that starts a studio. All that still run are killed at the end, also if the test fails."""
    started = []

    def start(**options: int) -> Served:
        started.append(Served(tmp_path, **options))
        return started[-1]

    yield start
    for served in started:
        served.kill()


def open_page(page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("#teach:not([hidden])")
    page.evaluate(
        "() => { window.newest = null; const source = new EventSource('events');"
        "source.onmessage = event => { window.newest = JSON.parse(event.data); }; }"
    )


def wait_for_label(page, label: str) -> None:
    """Wait until the synthetic camera begins to show a label."""
    per_label = round(30 * SECONDS_PER_LABEL)

    def begins() -> bool:
        newest = page.evaluate("window.newest") or {}
        number = newest.get("frame")
        return number is not None and label_at(number) == label and 4 < number % per_label < 12

    wait_until(begins)


def hold_each(page, labels: list[str], data: Path) -> None:
    """Record each label while the camera shows it: by mouse and by key in turn. Who was too late does it again."""
    for index, label in enumerate(labels):
        before = set((data / label).glob("*.jpg"))
        while True:
            hold(page, index, label)
            new = set((data / label).glob("*.jpg")) - before
            if {label_at(read_number(read_image(path))) for path in new} == {label}:
                break
            page.keyboard.press("u")
            see(page, "#done", "took")


def hold(page, index: int, label: str) -> None:
    """Hold the button or the key of a label until a few images are recorded."""
    before = count_on(page, label)
    wait_for_label(page, label)
    if index % 2:
        page.keyboard.down(str(index + 1))
    else:
        page.locator(".hold").nth(index).hover()
        page.mouse.down()
    wait_until(lambda: count_on(page, label) >= before + 4)
    page.keyboard.up(str(index + 1)) if index % 2 else page.mouse.up()
    wait_until(lambda: re.fullmatch(rf"recorded \d+ images of {label}", page.locator("#done").inner_text()))


def test_what_is_typed_while_a_label_is_added_stays(chromium, serve):
    page, requests = chromium.new_page(), []
    open_page(page, serve(seed=1).url)
    page.route("**/studio/add", lambda route: requests.append(route))
    page.keyboard.press("n")
    page.keyboard.type("one")
    page.keyboard.press("Enter")
    wait_until(lambda: page.evaluate("1") and requests)
    page.keyboard.type("two")
    requests.pop().continue_()
    page.wait_for_selector('.card[data-label="one"]')
    see(page, "#done", "added one")
    assert page.input_value("#new-label") == "two"
    page.keyboard.press("Enter")
    wait_until(lambda: page.evaluate("1") and requests)
    requests.pop().abort()
    see(page, "#done", "no connection")
    assert page.input_value("#new-label") == "two"
    page.close()


def test_from_an_empty_folder_to_right_answers_in_a_new_room(chromium, serve, tmp_path):
    """By clicking and keys only; then the model that is taken along does the same."""
    faults, labels = [], sorted(("none", *LABELS))
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    for seed in (1, 2, 3, 4):
        served = serve(seed=seed)
        open_page(page, served.url)
        if seed == 1:
            page.keyboard.press("n")
            for label in labels:
                page.keyboard.type(label)
                page.keyboard.press("Enter")
                page.wait_for_selector(f'.card[data-label="{label}"]')
        page.fill("#place-name", f"room {seed}")
        page.keyboard.press("Enter")
        wait_until(lambda: page.evaluate("document.activeElement === document.body"))
        hold_each(page, labels, tmp_path / "data")
        served.close()
    served = serve(seed=101)
    open_page(page, served.url)
    wait_until(lambda: "4 places" in page.locator("#accuracy").inner_text())
    correct: dict[int, bool] = {}
    while len(correct) < 100:
        newest = page.evaluate("window.newest")
        if newest["frame"] % 45 > 12:  # smoothing has forgotten the label before
            correct[newest["frame"]] = newest["label"] == label_at(newest["frame"])
    with page.expect_download() as download:
        page.get_by_role("button", name="Model file").click()
    download.value.save_as(tmp_path / "taken.onnx")
    page.locator(".card").first.get_by_role("button", name="Images").click()
    page.locator("#pictures button").first.click()
    page.locator("#move").click()
    see(page, "#done", "moved 1 images to palm")
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("u")
    see(page, "#done", "nothing to undo")
    for width in (1440, 1024, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    served.close()
    page.close()
    assert not [fault for fault in faults if "ERR_" not in fault]  # a server that has ended refuses connections
    assert sum(correct.values()) >= 50
    places = {sample.scene for sample in list_samples(tmp_path / "data")}
    assert places == {f"room {seed}" for seed in (1, 2, 3, 4)} == set(read_places(tmp_path / "data").values())
    options = ["--camera", "synthetic?seed=102", "--headless", "--json", "--max-frames", "180", "--smoothing", "0"]
    result = call("live/run.py", "--model", "taken.onnx", *options, cwd=tmp_path)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert sum(line["label"] == label_at(line["frame"]) for line in lines) > 0.5 * len(lines)


def add_labels(page, *labels: str) -> None:
    for label in labels:
        page.fill("#new-label", label)
        page.keyboard.press("Enter")
        page.wait_for_selector(f'.card[data-label="{label}"]')
    page.evaluate("document.activeElement.blur()")


def page_with_a_label(chromium, served: Served):
    page = chromium.new_page()
    open_page(page, served.url)
    add_labels(page, "a")
    return page


def count_on(page, label: str) -> int:
    return int(page.locator(f'.card[data-label="{label}"] p').inner_text().split()[0])


def test_a_second_page_shows_the_same_and_does_not_disturb_a_recording(chromium, serve, tmp_path):
    served = serve()
    first, second = chromium.new_page(), chromium.new_page()
    for page in (first, second):
        open_page(page, served.url)
    add_labels(first, "a", "b")
    second.wait_for_selector('.card[data-label="b"]')
    first.keyboard.down("1")
    second.wait_for_selector('.card[data-label="a"].recording')
    second.keyboard.press("2")
    see(second, "#done", "another page is recording a")
    wait_until(lambda: count_on(second, "a") >= 3)
    first.keyboard.up("1")
    see(first, "#done", "recorded")
    wait_until(lambda: count_on(first, "a") == count_on(second, "a") == len(list_samples(tmp_path / "data")))
    second.keyboard.down("2")
    wait_until(lambda: count_on(first, "b") >= 1)
    second.reload()  # with the key held: the recording ends
    wait_until(lambda: first.locator(".recording").count() == 0)
    for page in (first, second):
        page.close()
    served.close()


def test_a_killed_server_loses_nothing_and_the_page_goes_on(chromium, serve, tmp_path):
    served = serve()
    page = page_with_a_label(chromium, served)
    page.keyboard.down("1")
    wait_until(lambda: count_on(page, "a") >= 4)
    shown = count_on(page, "a")
    served.kill()
    see(page, "#state", "no connection to the device")
    see(page, "#done", "no connection to the device")
    page.keyboard.up("1")
    images = [read_image(sample.path) for sample in list_samples(tmp_path / "data")]
    assert len(images) >= shown
    assert {image.shape for image in images} == {(480, 640, 3)}
    again = serve(port=served.port)
    see(page, "#state", "live")
    wait_until(lambda: count_on(page, "a") == len(images))
    page.keyboard.down("1")
    wait_until(lambda: count_on(page, "a") > len(images))
    page.keyboard.up("1")
    see(page, "#done", "recorded")
    page.close()
    again.close()


def test_a_full_disk_is_said_and_it_goes_on_when_there_is_room(chromium, serve, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(data)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        served = serve()
        page = page_with_a_label(chromium, served)
        page.keyboard.down("1")
        wait_until(lambda: count_on(page, "a") >= 2)
        filler = data / ".filler"
        filler.write_bytes(bytes(os.statvfs(data).f_bavail * os.statvfs(data).f_bsize - (1 << 14)))
        see(page, "#done.bad", f"can't write {data.name}/a/")
        page.keyboard.up("1")
        assert all(read_image(sample.path) is not None for sample in list_samples(data))
        wait_until(lambda: count_on(page, "a") == len(list_samples(data)))
        filler.unlink()
        before = count_on(page, "a")
        page.keyboard.down("1")
        wait_until(lambda: count_on(page, "a") > before)
        page.keyboard.up("1")
        see(page, "#done", "recorded")
        page.close()
        served.close()
    finally:
        subprocess.run(["umount", "-l", str(data)], check=True)
