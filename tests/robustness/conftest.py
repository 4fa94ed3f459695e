"""Set how long the robustness tests run, and print their figures: inputs tried, faults injected, tests failed.

The short form is part of `make test-all`. `make soak` sets TEACHCAM_SOAK=1, for many more inputs, at random.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

SOAK = os.environ.get("TEACHCAM_SOAK") == "1"
COMMON = {
    "database": None,
    "deadline": None,  # the machine may be busy
    "suppress_health_check": [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
}
set_hypothesis_home_dir(Path(__file__).parents[2] / "build" / "hypothesis")
hypothesis.settings.register_profile("short", max_examples=40, derandomize=True, **COMMON)
hypothesis.settings.register_profile("soak", max_examples=3000, print_blob=True, **COMMON)
hypothesis.settings.load_profile("soak" if SOAK else "short")

FIGURES = {"inputs": "inputs tried", "faults": "faults injected"}


@pytest.fixture
def count(request) -> Callable[[str], None]:
    """Count one more input or fault, for the figures: `count("inputs")`."""
    counted: Counter[str] = Counter()
    yield lambda kind: counted.update([kind])
    # Of the test's report, because a process of pytest-xdist may have run the test.
    request.node.user_properties += [(kind, counted[kind]) for kind in FIGURES if counted[kind]]


@pytest.fixture(scope="session")
def rounds() -> Callable[[int, int], int]:
    """Return how often to repeat something: the first number, or the second in a soak."""
    return lambda short, soak: soak if SOAK else short


def assert_one_line(error: Exception) -> None:
    """Check that the text of an error is one line."""
    assert len(str(error).splitlines()) == 1, error


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the figures."""
    counted: Counter[str] = Counter()
    failed = set()
    for kind, reports in terminalreporter.stats.items():
        for report in (report for report in reports if "robustness" in getattr(report, "nodeid", "")):
            if kind in ("failed", "error"):
                failed.add(report.nodeid)
            if getattr(report, "when", "") == "teardown":  # the last of a test's reports, which has the figures
                counted.update({name: number for name, number in report.user_properties if name in FIGURES})
    if counted:
        figures = ", ".join(f"{counted[kind]} {text}" for kind, text in FIGURES.items())
        terminalreporter.write_line(f"robustness: {figures}, {len(failed)} tests failed")
