"""The end of a program at a signal: only at safe moments, with what must be finished, and never not at all."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no such signals")

BEGIN = """
import os, signal, sys, threading, time
from teachcam import cli, ending
ending.GRACE = 0.3

def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)

def say(text):
    os.write(1, f"{text}\\n".encode())

def wait_for_ever():
    while True:
        time.sleep(1)
"""


def said_by(script: str) -> list[str]:
    """Run a script that ends at a signal; return the lines that it has said."""
    done = subprocess.run([sys.executable, "-c", BEGIN + script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_code_without_checks_is_interrupted(name):
    assert said_by(f"""
def main():
    try:
        send(signal.{name})
        wait_for_ever()
    finally:
        say("closed")
cli.run(main)
""") == ["closed"]


def test_a_lock_is_never_left_taken():
    """The signal comes after Condition.__enter__ has taken its lock, before `with` knows it."""
    assert said_by("""
enter = threading.Condition.__enter__
event = threading.Event()
def interrupted(self):
    result = enter(self)
    if self is event._cond:
        threading.Condition.__enter__ = enter
        os.kill(os.getpid(), signal.SIGTERM)
    return result
interrupted = type(interrupted)(interrupted.__code__, {**globals(), "__name__": "threading"})
def main():
    threading.Condition.__enter__ = interrupted
    ending.GRACE = 30.0
    try:
        while True:
            event.set()
    finally:
        say(event._cond.acquire(timeout=1.0))
cli.run(main)
""") == ["True"]


def test_a_loop_ends_at_its_check():
    assert said_by("""
def main():
    with ending.only_at_checks():
        for number in range(10):
            say(number)
            ending.check()
            if number == 1:
                send()
            say("whole")
cli.run(main)
""") == ["0", "whole", "1", "whole", "2"]


def test_a_signal_after_the_last_check_is_not_lost():
    assert (
        said_by("""
def main():
    with ending.only_at_checks():
        send()
    say("wrong")
cli.run(main)
""")
        == []
    )


@pytest.mark.parametrize("stuck", ["lock.acquire()", "thread.join()", "queue.Queue().get()", "wait_for_ever()"])
def test_a_program_that_is_stuck_ends_and_finishes_what_is_held(stuck):
    assert said_by(f"""
import queue
def finish():
    say("finished")
    ending.release(finish)
def main():
    lock, thread = threading.Lock(), threading.Thread(target=wait_for_ever)
    lock.acquire()
    thread.start()
    ending.hold(finish)
    with ending.only_at_checks():
        send()
        {stuck}
cli.run(main)
""") == ["finished"]


def test_what_makes_progress_is_waited_for_and_what_is_stuck_is_not():
    assert said_by("""
def finish():
    pass
def work():
    for number in range(10):
        time.sleep(0.1)
        ending.hold(finish)
    say("done")
    ending.release(finish)
def main():
    ending.hold(finish)
    threading.Thread(target=work).start()
    ending.hold(wait_for_ever, 0.1)
    send()
    wait_for_ever()
cli.run(main)
""") == ["done"]


def test_a_second_signal_ends_at_once_what_is_not_held():
    assert said_by("""
ending.GRACE, ending.SAME_SIGNAL = 1000.0, 0.0
def main():
    with ending.only_at_checks():
        send()
        say("closing")
        while True:
            time.sleep(0.1)
            send()
cli.run(main)
""") == ["closing"]


def test_an_import_ends_at_once():
    assert (
        said_by("""
def main():
    try:
        with ending.at_once():
            send()
            wait_for_ever()
    finally:
        say("wrong")
cli.run(main)
""")
        == []
    )


def test_threads_that_are_left_behind_do_not_hold_up_the_end():
    """Python itself would wait for this thread."""
    assert said_by("""
import atexit
ending.GRACE = 1000.0
atexit.register(say, "at exit")
def main():
    threading.Thread(target=wait_for_ever).start()
    send()
    wait_for_ever()
cli.run(main)
""") == ["at exit"]


def test_a_second_signal_ends_a_program_that_is_ending():
    script = """
import atexit, gc
ending.GRACE = 1000.0
def press_again():
    gc.collect()
    say("ending")
    while True:
        time.sleep(0.1)
        send()
atexit.register(press_again)
def main():
    send()
    wait_for_ever()
cli.run(main)
"""
    assert said_by(script) == ["ending"]
