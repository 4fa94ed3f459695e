"""Every command in the README runs as it stands, a camera and a window apart."""

from __future__ import annotations

import re
import shlex
import shutil

import cv2
import pytest
from conftest import ROOT, call, call_here

from teachcam.collect import synthetic

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines() if "/" in line]
COMMANDS = [words for words in COMMANDS if words[0] == "python"]


@pytest.fixture(scope="module")
def home(tmp_path_factory, dataset, trained):
    """A folder with what the README takes for granted: data, a clip, pictures, a finished run."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(dataset, home / "data")
    shutil.copytree(trained, home / "runs/first")
    (home / "runs/latest").symlink_to("first")
    shutil.copy(trained / "model.onnx", home / "model.onnx")
    (home / "train").symlink_to(ROOT / "train")  # the recipes
    (home / "pictures").mkdir()
    writer = cv2.VideoWriter(str(home / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 30, (320, 240))
    for number, image in enumerate(synthetic.render("palm", 5, 20, 320, 240)):
        writer.write(image)
        cv2.imwrite(str(home / f"pictures/{number}.png"), image)
    writer.release()
    return home


def first_of(script: str) -> list[str]:
    return next(words for words in COMMANDS if words[1] == script)


def test_the_readme_has_commands():
    assert len(COMMANDS) > 10
    scripts = {"collect/capture.py", "collect/check.py", "train/finetune.py", "live/run.py"}
    scripts |= {"export/to_onnx.py", "export/compare.py", "live/doctor.py"}
    assert {words[1] for words in COMMANDS} == scripts


@pytest.mark.parametrize("words", COMMANDS, ids=[shlex.join(words[1:]) for words in COMMANDS])
def test_command(words, home):
    script, *arguments = words[1:]
    (home / "runs/latest").unlink()  # what one epoch taught is not worth an export
    (home / "runs/latest").symlink_to("first")
    arguments = ["synthetic:thumbs_up" if argument == "0" and arguments[i - 1] == "--camera" else argument
                 for i, argument in enumerate(arguments)]  # fmt: skip
    if "--review" in arguments:
        pytest.skip("a window, and somebody to press keys: tests/test_review.py has both")
    if "--http" in arguments:
        arguments[arguments.index("--http") + 1] = "0"  # 8080 may be taken here
    if script == "live/doctor.py":
        arguments += ["--camera", "synthetic"]
    if script in ("collect/capture.py", "live/run.py"):
        # Without a camera, a screen, or anybody to press a key.
        for flag, value in {"--headless": None, "--camera": "synthetic:thumbs_up", "--fps": "20"}.items():
            if flag not in arguments and not (flag == "--fps" and script == "live/run.py"):
                arguments += [flag] if value is None else [flag, value]
        if script == "collect/capture.py":
            arguments += ["--delay", "0"]
        most = "--count" if script == "collect/capture.py" else "--frames"
        arguments += [most, "5"]
    if script == "export/compare.py":
        arguments += ["--frames", "5"]
    if "--resume" in arguments:
        pytest.skip("something that was interrupted: tests/test_resume.py has that")
    if script == "train/finetune.py":
        arguments += ["--epochs", "1", "--budget", "1"]
        if "resnet18" in arguments:
            arguments += ["--weights", "none"]
    torch_again = script.startswith(("train/", "export/")) and words != first_of(script)
    result = (call_here if torch_again else call)(script, *arguments, cwd=home)
    assert result.returncode == 0, result.stderr


def test_the_python_example_runs(trained, tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(trained.parent.parent)
    example = example.replace("Camera(0)", "Camera(pictures)")
    cv2.imwrite(str(tmp_path / "1.png"), synthetic.render("palm", 5, 1, 320, 240)[0])
    exec(compile(example, "README.md", "exec"), {"pictures": str(tmp_path)})
    assert capsys.readouterr().out.split()[0] in ("palm", "thumbs_up", "thumbs_down")
