"""Commands that run when a label appears: real programs, and a shell only with --shell."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from conftest import PATIENCE, assert_one_line_error, call, finish, wait_until

from teachcam.errors import UserError
from teachcam.live.prediction import to_prediction
from teachcam.live.sinks.actions import Actions


def show(actions: Actions, labels: list[str], seconds: float = 0.1) -> None:
    """Call the sink with one prediction for each label, `seconds` apart by the frames' timestamps."""
    for index, label in enumerate(labels):
        result = SimpleNamespace(
            frame=SimpleNamespace(time=index * seconds), prediction=to_prediction({label: 0.9, "other": 0.1}, 0.0)
        )
        assert actions(result)
        for thread in actions._running.values():
            thread.join(PATIENCE)


def test_a_command_runs_once_when_its_label_appears(tmp_path, monkeypatch):
    log = tmp_path / "log"
    script = tmp_path / "note"
    script.write_text(f'#!/bin/sh\necho "$TEACHCAM_LABEL $TEACHCAM_CONFIDENCE $1" >> {log}\n')
    script.chmod(0o755)
    actions = Actions([f"a={script} 'two words'"], ("a", "b"), cool_down=0)
    show(actions, ["b", "a", "a", "a", "b", "a"])
    actions.close()
    assert log.read_text() == "a 0.900 two words\n" * 2


def test_a_command_does_not_run_again_during_the_cool_down(tmp_path):
    log = tmp_path / "log"
    actions = Actions([f"a=echo x >> {log}"], ("a", "b"), cool_down=0.5, shell=True)
    show(actions, ["a", "b"] * 6, seconds=0.1)  # a at 0, 0.2, 0.4, 0.6, 0.8, 1.0
    actions.close()
    assert log.read_text() == "x\n" * 2


def test_a_command_that_had_to_wait_runs_if_another_ran_meanwhile(tmp_path):
    log = tmp_path / "log"
    actions = Actions([f"{label}=echo {label} >> {log}" for label in "ab"], ("a", "b", "c"), 0.5, shell=True)
    show(actions, list("abaaaaaa"), seconds=0.1)  # else the lamp that b switched off would stay so
    assert log.read_text().split() == ["a", "b", "a"]
    log.unlink()
    actions = Actions([f"{label}=echo {label} >> {log}" for label in "ab"], ("a", "b", "c"), 0.5, shell=True)
    show(actions, list("acaaaaaa"), seconds=0.1)
    assert log.read_text().split() == ["a"]


def test_a_shell_is_used_only_on_request(tmp_path):
    actions = Actions([f"a=echo $(touch {tmp_path}/pwned) ; touch {tmp_path}/pwned"], ("a",))
    show(actions, ["a"])
    assert not list(tmp_path.iterdir())
    actions = Actions([f"a=cd {tmp_path} && touch asked"], ("a",), shell=True)
    show(actions, ["a"])
    assert (tmp_path / "asked").exists()


def test_a_command_that_fails_or_hangs_does_not_stop_the_loop(tmp_path, capfd):
    os.mkfifo(tmp_path / "gate")
    hang = f"echo x >> {tmp_path}/starts; cat {tmp_path}/gate"  # until something is written into the gate
    actions = Actions(["a=false", f"b={hang}"], ("a", "b"), cool_down=0, shell=True)
    show(actions, ["a"])
    assert "--on a: the command failed (1)" in capfd.readouterr().err
    for label in ["b", "a", "b", "a", "b"]:
        result = SimpleNamespace(frame=SimpleNamespace(time=0.0), prediction=to_prediction({label: 1.0}, 0.0))
        assert finish(actions, result)
    finish(actions.close)
    assert actions._running["b"].is_alive()  # nobody has waited for its end
    (tmp_path / "gate").write_text("go on")
    actions._running["b"].join(PATIENCE)
    assert (tmp_path / "starts").read_text() == "x\n"


def test_unknown_can_have_a_command(tmp_path):
    actions = Actions([f"unknown=touch {tmp_path}/seen"], ("a",))
    actions(SimpleNamespace(frame=SimpleNamespace(time=0.0), prediction=to_prediction({"a": 0.2}, 0.5)))
    actions.close()
    wait_until((tmp_path / "seen").exists)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("c=true", "LABEL one of a, b, unknown"),
        ("true", "give LABEL=COMMAND"),
        ("a=", "no command after the ="),
        ("a=no-such-program x", "the program 'no-such-program' is not installed"),
        ("a=echo 'open", "No closing quotation"),
    ],
)
def test_bad_commands_are_refused(command, words):
    with pytest.raises(UserError, match=words):
        Actions([command], ("a", "b"))


@pytest.mark.slow
def test_as_a_command(trained, tmp_path):
    arguments = ["--model", trained / "model.onnx", "--camera", "synthetic", "--headless", "--max-frames", "40"]
    result = call("live/run.py", *arguments, "--on", "thumbs_sideways=true", cwd=tmp_path)
    assert_one_line_error(result, "--on thumbs_sideways=true", "palm, thumbs_down, thumbs_up, unknown")
    every = [part for label in ("palm", "thumbs_up", "thumbs_down") for part in ("--on", f"{label}=touch {label}")]
    result = call("live/run.py", *arguments, *every, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    seen = {line.split()[2] for line in result.stdout.splitlines()}
    wait_until(lambda: {path.name for path in tmp_path.iterdir()} == seen)  # the program waits half a second for them
