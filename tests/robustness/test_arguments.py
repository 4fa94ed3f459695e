"""Any arguments of a command: they are taken, or refused in one line."""

from __future__ import annotations

import pytest
from conftest import assert_one_line_error, call_here
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from robustness.test_parsers import NASTY, NUMBERS

COMMANDS = {
    "collect/capture.py": ["--label", "--data", "--fps", "--max-frames", "--duration", "--delay", "--place", "--note",
                           "--camera", "--width", "--flip", "--review", "--headless"],
    "collect/check.py": ["--data", "--html", "--fix", "--undo", "--place", "--sessions"],
    "train/finetune.py": ["--data", "--labels", "--train-list", "--test-list", "--split", "--validation", "--folds",
                          "--test", "--image-size", "--backbone", "--weights", "--head", "--strategy", "--epochs",
                          "--lr", "--budget", "--out", "--device", "--seed", "--resume", "--show-augment"],
    "export/to_onnx.py": ["--checkpoint", "--out", "--target", "--precision", "--data", "--batch-size", "--describe"],
    "live/run.py": ["--model", "--provider", "--max-frames", "--smoothing", "--on", "--mqtt", "--post", "--http",
                    "--record", "--save-uncertain", "--data", "--json", "--headless", "--camera"],
    "teach/teach.py": ["--camera", "--label", "--data", "--place", "--examples", "--delay", "--out", "--max-frames"],
}  # fmt: skip
value = st.sampled_from(NASTY + NUMBERS + ["missing", "missing/x.onnx", "a=b", "@missing", "full", "ridge"])


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_any_arguments_end_in_one_line(tmp_path_factory, count, rounds, command):
    cwd = tmp_path_factory.mktemp("cwd")
    arguments = st.lists(st.sampled_from(COMMANDS[command]) | value, max_size=6)

    @settings(max_examples=rounds(40, 400))  # each opens files, or a camera that is not there
    @given(arguments)
    def try_them(given_arguments):
        assume("-h" not in given_arguments)
        count("inputs")
        result = call_here(command, *given_arguments, cwd=cwd)
        if result.returncode:
            assert_one_line_error(result)

    try_them()
