"""The `teachcam` command: help, and errors."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
from conftest import PATIENCE

from teachcam import __version__
from teachcam.commands import COMMANDS


def run(*arguments: str, cwd, setup: str = "pass") -> subprocess.CompletedProcess:
    code = f"import sys; {setup}; sys.argv = {['teachcam', *arguments]}; from teachcam.commands import main; main()"
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_main(name):
    assert callable(import_module(COMMANDS[name][0]).main)


def test_help_and_version(tmp_path):
    assert all(name in run("--help", cwd=tmp_path).stdout for name in COMMANDS)
    assert run("--version", cwd=tmp_path).stdout.strip() == __version__


def test_an_unknown_command_is_a_one_line_error(tmp_path):
    result = run("fly", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: there is no command 'fly': choose one of capture, ")


def test_a_missing_package_is_named_with_the_extra_that_has_it(tmp_path):
    result = run("train", cwd=tmp_path, setup="sys.modules['torch'] = None")
    assert result.returncode == 2
    assert result.stderr.strip().endswith(
        "the package torch, which is not installed: in the project's folder, run pip install '.[train]'"
    )


def test_errors_name_other_commands(tmp_path):
    result = run("live", cwd=tmp_path)
    assert result.returncode == 2
    assert "teachcam train" in result.stderr
    assert ".py" not in result.stderr
