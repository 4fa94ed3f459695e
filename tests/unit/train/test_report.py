"""The report of a run: what it shows is what was measured, and it opens from a file."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch

from teachcam.contract import Contract
from teachcam.train.metrics import interval
from teachcam.train.model.backbones import Network
from teachcam.train.report.gradcam import activation_maps

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def test_the_interval_is_as_wide_as_sessions_differ():
    right = np.array([True] * 90 + [False] * 10)
    alone = interval(right, [str(number) for number in range(100)])
    assert alone == pytest.approx((0.826, 0.945), abs=1e-3)  # Wilson's, for 90 of 100
    mixed = interval(right[np.random.default_rng(0).permutation(100)], [f"room{number // 10}" for number in range(100)])
    apart = interval(right, [f"room{number // 10}" for number in range(100)])  # all mistakes are in one room
    assert apart[1] - apart[0] > 1.5 * (mixed[1] - mixed[0])
    low, high = interval(np.ones(60, bool), ["a"] * 30 + ["b"] * 30)  # two rooms, all right: that is little to go by
    assert (low, high) == (pytest.approx(0.342, abs=1e-3), 1.0)
    assert interval(np.array([], bool), []) is None


def test_the_map_shows_what_speaks_for_an_answer():
    class Corner(torch.nn.Module):
        """Features: how bright each of 4x4 places is, of which the head asks for the first only."""

        def __init__(self):
            super().__init__()
            self.look = torch.nn.Conv2d(3, 1, 56, 56)
            torch.nn.init.constant_(self.look.weight, 1 / 56**2)
            torch.nn.init.zeros_(self.look.bias)

        def forward(self, x):
            return self.look(x).flatten(1)

    network = Network(Corner(), 16, 2)
    torch.nn.init.zeros_(network.head.weight)
    network.head.weight.data[0, 5] = 1.0
    image = np.zeros((480, 640, 3), np.uint8)
    image[120:240, 160:320] = 255  # the place that counts
    (heat,) = activation_maps(network, Contract(labels=("a", "b"), input_size=(224, 224)), [image], [0])
    assert heat.shape == (4, 4)
    assert heat.argmax() == 5
    assert heat.max() == 1
    assert activation_maps(network, Contract(labels=("a", "b"), input_size=(224, 224)), [], []) == []


def test_every_number_opens_its_pictures_and_nothing_comes_from_elsewhere(trained):
    page = (trained / "report.html").read_text()
    metrics = json.loads((trained / "metrics.json").read_text())
    links, places = set(re.findall(r'href="#([^"]+)"', page)), set(re.findall(r'id="([^"]+)"', page))
    assert links <= places
    filled = np.argwhere(metrics["validation"]["confusion"]).tolist()
    assert {f"cell-{true}-{answer}" for true, answer in filled} == {name for name in places if name.startswith("cell")}
    assert not re.findall(r'(?:src|href)="(?!data:image/jpeg|#)', page)
    assert "<script" not in page
    low, high = metrics["validation"]["interval"]
    assert f"{100 * low:.1f} % to {100 * high:.1f} %" in page


def test_names_in_the_report_are_text_and_not_markup(dataset, tmp_path, monkeypatch):
    from teachcam.train import finetune

    data = shutil.copytree(dataset, tmp_path / "data")
    (data / "palm").rename(data / "<script>alert(1)<")
    monkeypatch.chdir(tmp_path)
    finetune.main(["--strategy", "head", "--epochs", "1", "--no-refit", "--out", "runs/x"])
    assert "<script" not in (tmp_path / "runs/x/report.html").read_text()


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_in_a_browser_from_the_file_system(trained):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        asked, faults = [], []
        page.on("request", lambda request: asked.append(request.url.partition(":")[0]))
        page.on("console", lambda message: faults.append(message.text))
        for width in (1100, 390):
            page.set_viewport_size({"width": width, "height": 800})
            page.goto(f"file://{trained}/report.html")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
            for link in page.locator('a[href^="#"]').element_handles():
                if link.is_visible():
                    link.click()
            for number in page.locator(".confusion a").all():
                number.click()
                pictures = page.locator(f"{number.get_attribute('href')} figure")
                assert pictures.first.is_visible()
                assert pictures.count() == int(number.inner_text())
        browser.close()
    assert set(asked) <= {"file", "data"}
    assert not faults
