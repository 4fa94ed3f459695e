"""Pack a model into a zip that runs by itself: for a friend who has neither this project nor PyTorch."""

from __future__ import annotations

import io
import zipfile
from importlib import import_module, metadata
from pathlib import Path

import teachcam
from teachcam.export.metadata import read_metadata

# What live/run.py needs, with all that it can be asked for. preprocess is among it: it is not written a second time.
STAGES = ("collect", "export", "live")
SUFFIXES = (".py", ".html", ".css", ".js")
# Of `device-cpu` in pyproject.toml: what a model is taught with is left out.
REQUIREMENTS = ("numpy>=1.19", "opencv-python>=4.2", "pillow>=10.1", "traitlets>=4.3", "onnxruntime>=1.10")
PROGRAM = '''\
"""Say what the camera shows. README.txt explains it, and `python run.py --help` lists the options."""

import os
import sys

if sys.version_info < (3, 8):
    sys.exit("error: this needs Python 3.8 or newer, see README.txt")

from pathlib import Path

from teachcam.commands import run_kit

if __name__ == "__main__":
    run_kit(Path(os.path.abspath(__file__)).with_name("model.onnx"))
'''
README = """\
A CAMERA THAT TELLS THINGS APART

It was taught to tell these apart: {labels}.
It is made for Linux, Windows and macOS. It was tested on Linux only.
Nothing that your camera sees leaves your computer.


START IT

1. Install Python 3.8 or newer from https://www.python.org/downloads/ (on Windows, tick "Add python.exe to PATH").

2. Open a terminal in this folder, where you have unpacked the zip:
   Windows: open the folder, click into the address bar, type cmd and press Enter.
   macOS:   right-click the folder, Services, New Terminal at Folder.
   Linux:   right-click the folder, Open in Terminal.

3. Install what it needs. This is done once, and loads about 150 MB:

       python -m pip install -r requirements.txt

4. Run it:

       python run.py

Where the terminal does not know python, type python3 in its place (macOS, Linux) or py (Windows).
If pip says "externally managed environment", type these two lines first, and then step 3 again. In a new terminal,
type the second one again before step 4:

       python3 -m venv env
       source env/bin/activate


WHAT YOU SEE

A window with the camera's picture. At its top is what the model sees, and how sure it is.

   q       ends it
   h       shows the keys
   m       shows where the model looks
   1 to 9  keep the picture, with its right name, in the folder data


IF SOMETHING GOES WRONG

The wrong camera:   python run.py --camera 1       (or 2, or 3)
A video or photos:  python run.py --camera clip.mp4     (or a folder of photos)
A camera in the network: python run.py --camera rtsp://ADDRESS
No camera is found: Is it plugged in, and does another program use it? Close video calls. On macOS, allow Terminal to
                    use the camera: System Settings, Privacy & Security, Camera. On Windows: Settings, Privacy, Camera.
                    This one needs no camera, it draws hands:  python run.py --camera synthetic
No screen:          python run.py --headless       (it prints the answers; Ctrl-C ends it)
Windows says "DLL load failed": install https://aka.ms/vs/17/release/vc_redist.x64.exe
All options:        python run.py --help
A message names a command as teachcam doctor or the like: type  python -m teachcam doctor  for it.


WHAT IS IN HERE

model.onnx   the model. It contains eight of the pictures that it was taught with, to check itself on your computer.
run.py       the program; the folder teachcam is what it is made of, and LICENSE says what you may do with it.
"""


def pack_kit(model: Path) -> bytes:
    """Return a zip with a model file and all that runs it, but Python and the packages in its requirements.txt.

    Raises:
        ExportError: The model can't be read.
    """
    contract, _ = read_metadata(model)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(model, "model.onnx")
        archive.writestr("run.py", PROGRAM)
        archive.writestr("requirements.txt", "".join(f"{line}\n" for line in REQUIREMENTS))
        archive.writestr("README.txt", README.format(labels=", ".join(contract.labels)))
        archive.writestr("LICENSE", _license())
        for path in sorted(Path(teachcam.__file__).parent.glob("*.py")):
            archive.write(path, f"teachcam/{path.name}")
        for stage in STAGES:
            (folder,) = map(Path, import_module(f"teachcam.{stage}").__path__)
            for path in sorted(folder.rglob("*")):
                if path.suffix in SUFFIXES:
                    archive.write(path, f"teachcam/{stage}/{path.relative_to(folder).as_posix()}")
    return content.getvalue()


def _license() -> str:
    """Return the text of the license, which is beside the package, or where pip has put it."""
    beside = Path(__file__).resolve().parents[1] / "LICENSE"
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    installed = metadata.distribution("teachcam")
    return next(filter(None, map(installed.read_text, ("licenses/LICENSE", "LICENSE"))))
