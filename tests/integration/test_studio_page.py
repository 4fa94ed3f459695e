"""The studio's page in a real browser: the whole way, a second page, a killed server, a full disk."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LABELS, PATIENCE, ROOT, call, record, see, wait_until

from teachcam.collect.dataset import list_samples, read_places
from teachcam.collect.hands import SECONDS_PER_LABEL, label_at
from teachcam.collect.synthetic import read_number
from teachcam.images import read_image

pytestmark = [pytest.mark.slow, pytest.mark.browser]


class Served:
    """`teach/studio.py` on a synthetic room, and a browser's page of it."""

    def __init__(self, folder: Path, seed: int = 1, port: int = 0):
        camera = f"synthetic?seed={seed}&numbered=1"
        command = [sys.executable, str(ROOT / "teach/studio.py"), "--camera", camera, "--http", str(port)]
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
    page.evaluate("localStorage.clear()")
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
            see(page, "#done", "undone")


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
    for seed in (1, 2):
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
        see(page, "#done", f"recording in room {seed}")
        hold_each(page, labels, tmp_path / "data")
        served.close()
    served = serve(seed=101)
    open_page(page, served.url)
    wait_until(lambda: "2 places" in page.locator("#accuracy").inner_text())
    correct: dict[int, bool] = {}
    while len(correct) < 100:
        newest = page.evaluate("window.newest")
        if newest["frame"] % 45 > 12:  # smoothing has forgotten the label before
            correct[newest["frame"]] = newest["label"] == label_at(newest["frame"])
    with page.expect_download() as download:
        page.get_by_role("button", name="Model file").click()
    download.value.save_as(tmp_path / "taken.onnx")
    for width in (1440, 1024, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    served.close()
    page.close()
    assert not [fault for fault in faults if "ERR_" not in fault]  # a server that has ended refuses connections
    assert sum(correct.values()) >= 50
    places = {sample.scene for sample in list_samples(tmp_path / "data")}
    assert places == {f"room {seed}" for seed in (1, 2)} == set(read_places(tmp_path / "data").values())
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
    return int(page.locator(f'.card[data-label="{label}"] .count').inner_text().split()[0])


def is_in_sight(page, where: str) -> bool:
    """Return whether a part of the page is wholly inside the window."""
    return page.evaluate(
        "where => { const box = document.querySelector(where).getBoundingClientRect();"
        "return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight && box.left >= 0"
        " && box.right <= innerWidth; }",
        where,
    )


def hold_for(page, key: str, label: str, more: int) -> None:
    """Hold a key until some more images of a label are recorded."""
    before = count_on(page, label)
    page.keyboard.down(key)
    wait_until(lambda: count_on(page, label) >= before + more)
    page.keyboard.up(key)
    see(page, "#done", "recorded")


def test_on_a_phone_the_camera_the_answer_and_messages_stay_in_sight(chromium, serve):
    page = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True).new_page()
    open_page(page, serve().url)
    see(page, "#guide", "First: name what the camera should tell apart")
    add_labels(page, "a", "b", "c", "d", "e")
    for number in (1, 5):
        button = page.locator(".hold").nth(number - 1)
        button.scroll_into_view_if_needed()
        button.hover()
        page.mouse.down()
        page.wait_for_selector(".card.recording")
        assert all(is_in_sight(page, part) for part in ("#picture", "#label", "#overlay", ".recording .hold"))
        page.mouse.up()
        see(page, "#done", "recorded")
        assert is_in_sight(page, "#toast")
    page.fill("#new-label", "a/b")
    page.keyboard.press("Enter")
    page.wait_for_selector("#toast.bad")
    assert is_in_sight(page, "#toast")
    assert (
        min(
            page.evaluate(
                "[...document.querySelectorAll('button, select, #work input')].filter(one => one.checkVisibility())"
                ".map(one => one.getBoundingClientRect().height)"
            )
        )
        >= 28
    )
    page.context.close()


def test_undo_takes_back_the_last_thing_done_whatever_it_was(chromium, serve, tmp_path):
    served = serve()
    page = page_with_a_label(chromium, served)
    add_labels(page, "b")
    hold_for(page, "1", "a", 3)
    count = int(page.locator("#done").inner_text().split()[1])  # the card's count comes later, with the next state
    wait_until(lambda: count_on(page, "a") == count)
    page.locator(".card").first.get_by_role("button", name="Images").click()
    page.locator("#pictures button").nth(0).click()
    page.locator("#pictures button").nth(1).click(modifiers=["Shift"])
    see(page, "#chosen", f"2 of {count} images chosen")
    page.wait_for_selector("#large")
    page.locator("#take-out").click()
    see(page, "#done", "took 2 images out")
    assert is_in_sight(page, "#toast")
    page.locator("#toast-undo").click()
    see(page, "#done", "undone")
    see(page, "#chosen", f"0 of {count} images chosen")
    page.get_by_role("button", name="Choose all").click()
    page.locator("#move").click()
    see(page, "#chosen", "no images")
    page.locator("#close-gallery").click()
    page.keyboard.press("u")
    wait_until(lambda: count_on(page, "a") == count)
    page.locator(".card").first.get_by_role("button", name="Change").click()
    page.fill("#new-name", "z")
    page.keyboard.press("Enter")
    page.wait_for_selector('.card[data-label="z"]')
    assert page.locator(".card h3").all_inner_texts() == ["z", "b"]  # it stays where it was
    served.close()
    again = serve(port=served.port)  # undo survives that
    see(page, "#state", "live")
    for text, labels in (("undone: the new name z", ["a", "b"]), ("undone: the recording of", ["a", "b"])):
        page.keyboard.press("u")
        see(page, "#done", text)
        wait_until(lambda labels=labels: page.locator(".card h3").all_inner_texts() == labels)
    wait_until(lambda: count_on(page, "a") == 0)
    page.keyboard.press("r")
    wait_until(lambda: count_on(page, "a") == count)
    page.locator(".card").first.get_by_role("button", name="Change").click()
    page.locator("#remove").click()
    wait_until(lambda: page.locator(".card").count() == 1)
    page.locator("#show-rejected").click()
    page.wait_for_selector("#pictures button")
    page.get_by_role("button", name="Choose all").click()
    page.locator("#put-back").click()
    see(page, "#chosen", "no images")
    page.locator("#close-gallery").click()
    wait_until(lambda: page.locator(".card").count() == 2 and count_on(page, "a") == count)
    assert len(list_samples(tmp_path / "data")) == count
    page.close()
    again.close()


def test_keys_that_can_not_do_what_they_say_do_nothing_and_say_so(chromium, serve):
    page = page_with_a_label(chromium, serve())
    add_labels(page, "b")
    page.keyboard.press("9")
    see(page, "#done", "there is no label 9: there are 2")
    page.keyboard.down("1")
    page.wait_for_selector('.card[data-label="a"].recording')
    before = count_on(page, "a")
    page.keyboard.press("2")
    page.keyboard.press("u")
    see(page, "#done", "let go of the button first")
    wait_until(lambda: count_on(page, "a") >= before + 3)
    page.keyboard.up("1")
    see(page, "#done", "recorded")
    assert count_on(page, "b") == 0
    page.locator(".hold").first.click()
    see(page, "#done", "recorded")
    page.close()


def test_hands_free_waits_records_and_ends_by_itself(chromium, serve):
    page = page_with_a_label(chromium, serve())
    page.select_option("#delay", "1")
    page.select_option("#duration", "2")
    page.get_by_role("button", name="Hands-free").click()
    see(page, "#overlay", "a in 1")
    see(page, "#overlay", "recording a")
    see(page, "#done", "recorded")
    wait_until(lambda: count_on(page, "a") >= 1)
    page.get_by_role("button", name="Hands-free").click()
    see(page, "#overlay", "a in 1")
    page.get_by_role("button", name="Hands-free").click()  # it says Stop now
    page.wait_for_selector("#overlay", state="hidden")
    page.close()


def test_ten_tabs_work_and_a_closed_one_records_no_more(chromium, serve):
    served = serve()
    context = chromium.new_context()
    pages = [context.new_page() for _ in range(10)]
    for page in pages:
        open_page(page, served.url) if page is pages[0] else page.goto(served.url)
        see(page, "#state", "live")
    add_labels(pages[-1], "a")
    for page in pages[:3]:
        page.wait_for_selector('.card[data-label="a"]')
        hold_for(page, "1", "a", 1)
    pages[1].keyboard.down("1")
    pages[0].wait_for_selector(".card.recording")
    pages[1].close()
    pages[0].wait_for_selector(".card:not(.recording)")
    hold_for(pages[2], "1", "a", 1)
    context.close()


def test_the_camera_and_its_mirror_image_are_chosen_on_the_page(chromium, serve):
    page = page_with_a_label(chromium, serve())
    page.locator("#mirror").click()
    page.wait_for_selector("#mirror[aria-pressed=true]")
    page.locator("#choose-camera").click()
    page.wait_for_selector("#camera-list button")
    page.locator("#camera-list button", has_text="synthetic").last.click()
    page.wait_for_selector("#camera-dialog:not([open])", state="attached")
    page.close()


def test_a_file_to_take_along_can_be_canceled_and_comes_alone(chromium, serve, tmp_path):
    record(tmp_path / "data", range(3), ["a", "b"], frames=8)
    page = chromium.new_page()
    downloads = []
    page.on("download", lambda download: downloads.append(download.suggested_filename))
    open_page(page, serve().url)
    page.wait_for_selector("#files:not([hidden])", timeout=1000 * PATIENCE)
    page.select_option("#precision", "int8")
    page.locator("#take-model").click()
    page.wait_for_selector("#cancel-export:not([hidden])")
    assert page.locator("#take-kit").is_disabled()
    page.locator("#cancel-export").click()
    page.wait_for_selector("#cancel-export", state="hidden")
    page.select_option("#precision", "fp32")
    with page.expect_download(timeout=1000 * PATIENCE):
        page.locator("#take-kit").click()
    assert downloads == ["teachcam-kit.zip"]
    page.close()


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
    assert second.locator(".hold").nth(0).is_disabled()
    second.locator(".card").first.get_by_role("button", name="Change").click()
    second.fill("#new-name", "c")
    second.keyboard.press("Enter")
    see(second, "#toast.bad #done", "a is being recorded")
    second.locator("#close-label").click()
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
    see(page, "#done", "no connection to the device")  # from the recording that ended, or an action after it
    assert page.evaluate("document.getElementById('work').inert")
    page.keyboard.up("1")
    images = [read_image(sample.path) for sample in list_samples(tmp_path / "data")]
    assert len(images) >= shown
    assert {image.shape for image in images} == {(480, 640, 3)}
    again = serve(port=served.port)
    see(page, "#state", "live")
    wait_until(lambda: count_on(page, "a") == len(images))
    assert page.locator("#toast").is_hidden()
    assert not page.evaluate("document.getElementById('work').inert")
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
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 14)):  # until nothing is left, though the studio writes, too
                pass
        see(page, "#toast.bad #done", f"can't write {data.name}/a/")
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
