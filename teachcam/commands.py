"""The `teachcam` command: `teachcam capture` does what `python collect/capture.py` does, wherever it is installed."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from teachcam import __version__, cli, ending
from teachcam.errors import UserError

# Each command: the module whose `main(argv)` it calls, and a line for `teachcam --help`.
COMMANDS = {
    "capture": ("teachcam.collect.capture", "record labeled images with a camera"),
    "check": ("teachcam.collect.check", "find what is wrong with a dataset"),
    "train": ("teachcam.train.finetune", "train longer, and more accurately (needs PyTorch)"),
    "export": ("teachcam.export.to_onnx", "write a trained model as ONNX, for a device"),
    "engine": ("teachcam.export.engine", "build a TensorRT engine, on the device"),
    "studio": ("teachcam.teach.studio", "teach on a web page"),
    "teach": ("teachcam.teach.teach", "the same, in the terminal"),
    "live": ("teachcam.live.run", "classify what a camera sees"),
    "bench": ("teachcam.live.bench", "measure how fast a model runs here in each precision"),
    "doctor": ("teachcam.live.doctor", "find what keeps this machine from running a model"),
    "demo": ("teachcam.live.demo", "do all of it once, on a synthetic camera"),
}
KIT_PROGRAM = "python run.py"  # of a kit (teach/kit.py), which has no folders to call
KIT_NEEDS = ("numpy", "cv2", "PIL", "traitlets", "onnxruntime")  # what its requirements.txt installs
TRAINING = ("train", "export", "demo")  # these need PyTorch, and Python 3.10


def main() -> None:
    """Run one command with the rest of the arguments, and leave the program with its exit code."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        sys.exit(0)
    if name == "--version":
        print(__version__)
        sys.exit(0)
    sys.argv[0] = f"teachcam {name}"  # what usage lines call the program
    cli.run(lambda: _run(name, arguments))


def run_script(name: str) -> None:
    """Run one command with the arguments of `python folder/command.py`, and leave the program with its exit code.

    Such a file calls this before its own imports. They take seconds, and Ctrl-C meanwhile would show a traceback.
    """
    cli.run(lambda: _run(name, sys.argv[1:]))


def run_kit(model: Path) -> None:
    """Run the live loop of a kit with the arguments of `python run.py`, and leave the program with its exit code."""
    sys.argv[0] = KIT_PROGRAM
    cli.run(lambda: _run("live", ["--model", str(model), *sys.argv[1:]]))


def _run(name: str, arguments: list[str]) -> int | None:
    try:
        return _command(name)(arguments)
    except ModuleNotFoundError as error:
        raise UserError(_what_is_missing(name, error)) from None


def _command(name: str):
    """Return the `main` function of a command."""
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}: choose one of {', '.join(COMMANDS)}")
    if name in TRAINING and sys.version_info < (3, 10):
        version = ".".join(map(str, sys.version_info[:2]))
        raise UserError(f"teachcam {name} needs Python 3.10 or newer, and this is {version}: train on another machine")
    with ending.at_once():
        return import_module(COMMANDS[name][0]).main


def _what_is_missing(name: str, error: ModuleNotFoundError) -> str:
    """Return what a command needs, and how to install it."""
    package = (error.name or "").split(".")[0]
    if sys.argv[0] == KIT_PROGRAM:
        needed = "-r requirements.txt" if package in KIT_NEEDS else package  # onnx, for --tune
        return f"{package} is not installed: run python -m pip install {needed}"
    extra = "train" if name in TRAINING else "device"
    return (
        f"teachcam {name} needs the package {package}, which is not installed: in the project's folder, "
        f"run pip install '.[{extra}]'"
    )


def _help() -> str:
    lines = [f"  {name:<9} {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        ["usage: teachcam COMMAND ...", "", *lines, "", "teachcam COMMAND --help lists the options of a command."]
    )


if __name__ == "__main__":
    main()
