# SPDX-License-Identifier: Apache-2.0
"""The numbers that CPUs have."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from emptcp.pybpf.errors import BpfError

POSSIBLE = Path("/sys/devices/system/cpu/possible")


@cache
def cpu_ids() -> int:
    """Return one more than the highest number that a CPU can have (the kernel's ``nr_cpu_ids``).

    That can be more than there can be CPUs: their numbers may have gaps.

    :raises BpfError: the kernel does not tell.
    """
    try:
        return highest(POSSIBLE.read_text()) + 1
    except (OSError, ValueError) as error:
        raise BpfError(
            f"{POSSIBLE} does not tell which CPUs there can be ({error})", fix="Mount sysfs on /sys."
        ) from None


def highest(numbers: str) -> int:
    """Return the highest number of a list of CPUs as the kernel writes it (``0-3,8``).

    :raises ValueError: it has none.
    """
    return max(map(int, re.findall(r"\d+", numbers)))
