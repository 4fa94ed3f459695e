"""The report of a run: it shows what was measured, and opens from a file without a network."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import CHROMIUM, SMALL

from teachcam.contract import Contract
from teachcam.train.model.backbones import Network
from teachcam.train.report.gradcam import activation_maps


def test_the_heat_map_shows_the_place_that_speaks_for_a_class():
    class Places(torch.nn.Module):
        """Features: the brightness of each of 4x4 places. The head uses one of them."""

        def __init__(self):
            super().__init__()
            self.brightness = torch.nn.Conv2d(3, 1, 56, 56)
            torch.nn.init.constant_(self.brightness.weight, 1 / 56**2)
            torch.nn.init.zeros_(self.brightness.bias)

        def forward(self, x):
            return self.brightness(x).flatten(1)

    network = Network(Places(), 16, 2)
    torch.nn.init.zeros_(network.head.weight)
    network.head.weight.data[0, 5] = 1.0
    image = np.zeros((480, 640, 3), np.uint8)
    image[120:240, 160:320] = 255  # the place that the head uses
    (heat,) = activation_maps(network, Contract(labels=("a", "b"), input_size=(224, 224)), [image], [0])
    assert heat.shape == (4, 4)
    assert heat.argmax() == 5
    assert heat.max() == 1
    assert activation_maps(network, Contract(labels=("a", "b"), input_size=(224, 224)), [], []) == []


def test_each_number_of_the_confusion_matrix_has_its_images_and_nothing_is_loaded(trained):
    page = (trained / "report.html").read_text()
    metrics = json.loads((trained / "metrics.json").read_text())
    links, ids = set(re.findall(r'href="#([^"]+)"', page)), set(re.findall(r'id="([^"]+)"', page))
    assert links
    assert links <= ids
    cells = np.argwhere(metrics["validation"]["confusion"]).tolist()
    assert {f"cell-{true}-{predicted}" for true, predicted in cells} == {
        name for name in ids if name.startswith("cell")
    }
    assert not re.findall(r'(?:src|href)="(?!data:image/jpeg|#)', page)
    assert "<script" not in page
    low, high = metrics["validation"]["confidence_interval"]
    assert f"{100 * low:.1f} % to {100 * high:.1f} %" in page


def test_labels_are_escaped_in_the_report(dataset, tmp_path, monkeypatch):
    from teachcam.train import finetune

    data = shutil.copytree(dataset, tmp_path / "data")
    (data / "palm").rename(data / "<script>alert(1)<")
    monkeypatch.chdir(tmp_path)
    finetune.main(["--strategy", "head", *SMALL, "--epochs", "1", "--no-refit", "--out", "runs/x"])
    assert "<script" not in (tmp_path / "runs/x/report.html").read_text()


@pytest.mark.slow
@pytest.mark.browser
def test_the_report_works_in_a_browser_from_a_file(trained):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        schemes, messages = [], []
        page.on("request", lambda request: schemes.append(request.url.partition(":")[0]))
        page.on("console", lambda message: messages.append(message.text))
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
    assert set(schemes) <= {"file", "data"}
    assert not messages
