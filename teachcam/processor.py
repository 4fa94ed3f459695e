"""The name of this machine's processor, the CPUs that may be used, and the free memory.

Measured times and accuracies hold for one processor, and name it.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path


def processor_name() -> str:
    """Return the processor's model name. On x86 it says whether there is VNNI, the fast int8 instructions."""
    try:
        info = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    model = re.search(r"^model name\s*: *(.+)", info, re.MULTILINE)
    name = model[1] if model else platform.machine()
    if platform.machine() != "x86_64":
        return name
    return f"{name}, {'VNNI' if re.search('avx512_vnni|avx_vnni', info) else 'no VNNI'}"


def usable_cpus() -> set[int]:
    """Return the CPUs that this thread may use. None where the system does not say: a thread can't be tied there."""
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return set()


def free_memory() -> int | None:
    """Return how many bytes of memory programs may still take, or None where the system does not say."""
    try:
        info = Path("/proc/meminfo").read_text()
    except OSError:  # not Linux
        return None
    available = re.search(r"^MemAvailable: +(\d+) kB", info, re.MULTILINE)
    return 1024 * int(available[1]) if available else None


def share_of_memory(share: float, limit: int) -> int:
    """Return how many bytes to use: a share of the free memory, and `limit` at most."""
    free = free_memory()
    return limit if free is None else min(limit, int(share * free))
