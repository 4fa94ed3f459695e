"""What this machine's processor is called: figures and proofs are of one processor, and say of which."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def processor_name() -> str:
    """Return the processor's model and, on x86, whether it has VNNI, the instructions that int8 is quick with."""
    try:
        info = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    model = re.search(r"^model name\s*: *(.+)", info, re.MULTILINE)
    name = model[1] if model else platform.machine()
    if platform.machine() != "x86_64":
        return name
    return f"{name}, {'VNNI' if re.search('avx512_vnni|avx_vnni', info) else 'no VNNI'}"
