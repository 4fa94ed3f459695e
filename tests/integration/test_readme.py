"""Run every command in the README and in docs/ as it is written, except that the camera and the window are replaced."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
import shutil

import cv2
import pytest
from conftest import ROOT, call, call_here

from teachcam.collect import synthetic

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = {
    "collect/capture.py",
    "collect/check.py",
    "export/engine.py",
    "export/to_onnx.py",
    "live/bench.py",
    "live/demo.py",
    "live/doctor.py",
    "live/run.py",
    "teach/studio.py",
    "teach/teach.py",
    "train/finetune.py",
}
NOT_RUN = {  # a word of the command: why it is not run here
    "--list-cameras": "fails on a machine without a camera",
    "--resume": "needs a run that was interrupted: see test_resume.py",
    "--review": "needs a window and somebody who presses keys: see test_review.py",
    "export/engine.py": "needs TensorRT, so a GPU",
    "teach/studio.py": "serves a page until somebody ends it: see test_studio.py",
    "make": "installs from a network and takes minutes; continuous integration runs it",
    "pip": "installs from a network",
    "source": "changes the shell that it is typed into",
    "sudo": "installs the system's packages",
    "torchrun": "starts several processes: see test_train.py",
}
FOREIGN_OPTIONS = {"--help", "--no-deps", "--index-url", "--nproc-per-node"}  # argparse's, pip's and torchrun's
FOREIGN_OPTIONS |= {"--nnodes", "--node-rank", "--master-addr", "--master-port", "--rm", "--gpus", "--model-repository"}
FOREIGN_OPTIONS |= {"--parts", "--sizes", "--shards"}  # of benchmarks/growth
FOREIGN_OPTIONS |= {"--tutorial", "--dry-run", "--train"}  # of benchmarks/teach.py and live/jetson/install.sh


def commands_of(page) -> list[list[str]]:
    """Return the words of each command in a page's bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words for words in lines if words]


README_COMMANDS = commands_of(PAGES[0])
COMMANDS = []
for page in PAGES:
    COMMANDS += [words for words in commands_of(page) if words not in COMMANDS]
RUN = [words for words in COMMANDS if not NOT_RUN.keys() & set(words)]
EXAMPLES = sorted({block for page in PAGES for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S)})


@pytest.fixture(scope="module")
def home(tmp_path_factory, dataset, trained):
    """A folder with the files that the commands expect: data, a clip, pictures, a finished run."""
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


def first_with(script: str) -> list[str]:
    return next(words for words in RUN if words[1] == script)


def test_readme_names_the_daily_commands():
    scripts = {words[1] for words in README_COMMANDS if words[0] == "python"}
    assert scripts == {"collect/capture.py", "train/finetune.py", "live/run.py", "teach/studio.py"}
    assert len(PAGES[0].read_text().splitlines()) <= 130


def test_each_command_is_run_or_has_a_reason():
    assert {words[0] for words in RUN} == {"python"}
    assert {words[1] for words in RUN} <= SCRIPTS
    assert NOT_RUN.keys() <= {word for words in COMMANDS for word in words}, "a reason for a command that is gone"


def test_each_option_in_the_docs_exists():
    known = set(FOREIGN_OPTIONS)
    for script in SCRIPTS - {"live/demo.py"}:
        main = importlib.import_module("teachcam." + script[:-3].replace("/", ".")).main
        with contextlib.redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit):
            main(["--help"])
        known |= set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text.getvalue()))
    for page in PAGES:
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page.read_text()))
        assert used <= known, page.name


def test_links_in_readme_lead_to_files():
    for link in re.findall(r"\]\(([^)#]+)", PAGES[0].read_text()):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(
            words, marks=() if words in README_COMMANDS and "train/finetune.py" not in words else pytest.mark.slow
        )
        for words in RUN
    ],
    ids=[shlex.join(words[1:]) for words in RUN],
)
def test_command(words, home, dataset):
    script, *arguments = words[1:]
    if script == "collect/check.py":  # captures before it recorded one synthetic hand under several labels
        shutil.rmtree(home / "data")
        shutil.copytree(dataset, home / "data")
    (home / "runs/latest").unlink()  # a model of one epoch does not pass the checks of an export
    (home / "runs/latest").symlink_to("first")
    arguments = [
        "synthetic:thumbs_up" if argument in ("0", "csi:0") and before == "--camera" else argument
        for before, argument in zip(words[1:], arguments, strict=False)
    ]
    if "--sessions" in arguments:
        arguments = [*arguments[: arguments.index("--sessions") + 1], "20*"]  # all sessions of this century
    if "--http" in arguments:
        arguments[arguments.index("--http") + 1] = "0"  # any free port
    if script == "live/doctor.py":
        arguments += ["--camera", "synthetic"]
    if script == "teach/teach.py":
        arguments += ["--delay", "0", "--examples", "6", "--data", "taught", "--max-frames", "5"]
    if script in ("collect/capture.py", "live/run.py"):
        defaults = {"--headless": [], "--camera": ["synthetic:thumbs_up"]}
        if script == "collect/capture.py":
            defaults["--fps"] = ["20"]
            arguments += ["--delay", "0"]
        for option, values in defaults.items():
            if option not in arguments:
                arguments += [option, *values]
        arguments += ["--max-frames", "5"]
    if script == "live/bench.py":
        arguments += ["--seconds", "1"]
    if script == "train/finetune.py":
        arguments += ["--budget", "1"] + ([] if "ridge" in arguments else ["--epochs", "1"])
        if "--image-size" not in arguments and not any(argument.startswith("@") for argument in arguments):
            arguments += ["--image-size", "64"]
            if "--backbone" not in arguments:
                arguments += ["--backbone", "squeezenet1_1"]
        if "resnet18" in arguments:
            arguments += ["--weights", "none"]
    result = (call if words == first_with(script) else call_here)(script, *arguments, cwd=home)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("example", EXAMPLES)
def test_python_example(example, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained.parent.parent)
    cv2.imwrite(str(tmp_path / "1.png"), synthetic.render("palm", 5, 1, 320, 240)[0])
    code = compile(example.replace("Camera(0)", "Camera(pictures)"), "example", "exec")
    exec(code, {"pictures": str(tmp_path)})
    assert capsys.readouterr().out.split()[0] in ("palm", "thumbs_up", "thumbs_down", "unknown")
