"""Labels of the bare background are known; those that are taken for no value are warned of."""

from __future__ import annotations

import pytest
from conftest import call_here, record

from teachcam.labels import has_background_label, warnings_of_labels


@pytest.mark.parametrize("label", ["None", "unavailable", "unknown"])
def test_a_label_that_means_no_value_is_warned_of(label, tmp_path):
    (warning,) = warnings_of_labels(["a", label, "none", "off"])
    assert f" {label}" in warning
    options = ("--camera", "synthetic?fps=60", "--headless", "--max-frames", 2, "--fps", 0, "--place", "x")
    recorded = call_here("collect/capture.py", "--label", label, *options, cwd=tmp_path)
    assert recorded.returncode == 0, recorded.stderr
    assert recorded.stderr.count(f"warning: {warning}") == 1
    checked = call_here("collect/check.py", cwd=tmp_path)
    assert checked.stdout.count(f"warning: {warning}") == 1


def test_ordinary_labels_are_not(tmp_path):
    record(tmp_path / "data", [1])
    assert "no value" not in call_here("collect/check.py", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("labels", "shows_background", "expected"),
    [
        (("palm", "thumbs_up"), False, False),
        (("palm", "none"), False, True),
        (("Background", "palm"), False, True),
        (("palm", "nothing_else"), False, False),
        (("palm", "wall"), True, True),
    ],
)
def test_a_label_of_the_background_is_known_by_its_name_or_its_images(labels, shows_background, expected):
    assert has_background_label(labels, shows_background) == expected
