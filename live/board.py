"""Find out which board or computer this is, and what it says about its power."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

JETPACKS = {32: "4", 35: "5", 36: "6", 38: "7", 39: "7"}  # by the release of Jetson Linux (L4T)
WHOLE_BOARD = ("VDD_IN", "POM_5V_IN")  # the rails that feed a whole module, on all Jetsons but the AGX


class Board(NamedTuple):
    """A board or computer."""

    name: str  # a Jetson's model, else the operating system's name
    l4t: str  # the version of Jetson Linux, as 36.4.3; '' on anything but a Jetson

    @property
    def jetpack(self) -> str:
        """The JetPack, as '6 (L4T 36.4.3)', or ''."""
        return f"{JETPACKS.get(int(self.l4t.split('.')[0]), '?')} (L4T {self.l4t})" if self.l4t else ""


def find_board(root: Path = Path("/")) -> Board:
    """Return this board; `root` is where its file system is."""
    name = read_text(root / "proc/device-tree/model").strip("\0\n ")
    release = re.search(r"R(\d+).*REVISION: ([\d.]+)", read_text(root / "etc/nv_tegra_release"))
    return Board(name or platform.platform(), f"{release[1]}.{release[2]}" if release else "")


def power_mode() -> str:
    """Return the name of a Jetson's power mode, as 15W, or ''."""
    mode = output_of("nvpmodel", "-q")
    name = re.search(r"NV Power Mode: *(\S+)", mode)
    return name[1] if name else mode.splitlines()[-1] if mode else ""


def read_watts(root: Path = Path("/")) -> float | None:
    """Return the power that a Jetson takes now, in watts: of the whole module, else the sum of its rails.

    Returns None where nothing measures it.
    """
    rails: dict[str, float] = {}
    for label in root.glob("sys/class/hwmon/hwmon*/in*_label"):  # JetPack 5 and later
        if read_text(label.parent / "name").strip() != "ina3221":  # the power sensor of Jetsons
            continue
        number = label.name[2:].split("_")[0]
        volts, amperes = (_milli(label.parent / f"{kind}{number}_input") for kind in ("in", "curr"))
        if volts is not None and amperes is not None:
            rails[read_text(label).strip()] = volts * amperes
    for label in root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*"):  # JetPack 4
        watts = _milli(label.parent / f"in_power{label.name.split('_')[-1]}_input")
        if watts is not None:
            rails[read_text(label).strip()] = watts
    whole = [watts for name, watts in rails.items() if name in WHOLE_BOARD]
    return whole[0] if whole else sum(rails.values()) if rails else None


def _milli(path: Path) -> float | None:
    """Return a thousandth of the number in a file, or None."""
    text = read_text(path).strip()
    return int(text) / 1000 if text.isdecimal() else None


def read_text(path: Path) -> str:
    """Return a file's text, or '' if it can't be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def output_of(*command: str) -> str:
    """Return the output of a program, or '' if it is not installed, fails or hangs."""
    try:
        run = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace", timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
