"""Parts that work differently on Windows and macOS. Nothing here runs on those: only `sys.platform` says so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from teachcam import onnx_session, processor
from teachcam.background_training import LOG, BackgroundTraining


def test_a_training_is_ended_where_one_process_can_not_be_interrupted(tmp_path, monkeypatch):
    training = BackgroundTraining()
    training.stop()  # nothing runs
    training.run = tmp_path
    (tmp_path / LOG).write_text("epoch 3\n")
    training._process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        training.stop()
    training._process.communicate()
    assert not training.running
    assert training.failure.startswith("stopped: it can go on")


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_no_thread_is_tied_to_a_core_where_that_can_not_be(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    assert processor.usable_cpus() == set()
    assert onnx_session._session_options().intra_op_num_threads == 0  # ONNX Runtime chooses
