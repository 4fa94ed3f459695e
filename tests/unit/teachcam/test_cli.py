"""What all commands share: exit codes, messages on stderr, values of options."""

from __future__ import annotations

import argparse
import io
import logging
import signal
import subprocess
import sys

import pytest

from teachcam import cli
from teachcam.errors import CameraError

LOG = """
import logging, sys
from teachcam import cli
def main():
    logging.getLogger("teachcam.collect.capture").info("palm in %d s", 3)
    logging.getLogger("teachcam.collect.capture").debug("hidden")
    logging.getLogger("another.package").warning("shown by Python itself")
    logging.getLogger("another.package").info("hidden")
cli.run(main)
"""


def exit_code(main) -> int:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(SystemExit) as exit_:
            cli.run(main)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return exit_.value.code


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("main", "code", "message"),
    [
        (lambda: None, 0, ""),
        (lambda: 2, 2, ""),
        (lambda: fail(CameraError("camera 0 does not open")), 2, "error: camera 0 does not open\n"),
        (lambda: fail(KeyboardInterrupt()), 130, ""),
    ],
)
def test_exit_codes_and_errors(main, code, message, capsys):
    assert exit_code(main) == code
    assert capsys.readouterr().err == message


def test_log_messages_go_to_stderr_without_a_prefix():
    result = subprocess.run([sys.executable, "-c", LOG], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr.splitlines() == ["palm in 3 s", "shown by Python itself"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell that closes streams")
def test_stderr_may_be_closed_before_the_start():
    command = ["/bin/sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, LOG]
    assert subprocess.run(command, stdout=subprocess.PIPE).returncode == 0


@pytest.mark.parametrize("closed", [None, io.StringIO()])
def test_stderr_may_be_closed_later(closed, monkeypatch):
    cli.log_to_stderr()
    if closed:
        closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    logging.getLogger("teachcam.live").info("is lost")


def test_a_second_call_does_not_print_messages_twice(capsys):
    cli.log_to_stderr()
    cli.log_to_stderr()
    logging.getLogger("teachcam.live").info("once")
    assert capsys.readouterr().err == "once\n"


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many"])
def test_a_positive_int_is_a_whole_number_of_at_least_1(text):
    assert cli.positive_int("3") == 3
    with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
        cli.positive_int(text)


@pytest.mark.parametrize("text", ["-0.1", "nan", "inf", "fast"])
def test_a_non_negative_float_is_finite(text):
    assert cli.non_negative_float("0") == 0
    with pytest.raises(argparse.ArgumentTypeError, match="0 or more"):
        cli.non_negative_float(text)
