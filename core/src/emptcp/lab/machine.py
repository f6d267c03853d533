# SPDX-License-Identifier: Apache-2.0
"""What was measured on."""

from __future__ import annotations

import platform
from pathlib import Path


def machine() -> str:
    """Return the processor and the kernel, as figures name them."""
    return f"{_processor()}, Linux {platform.release()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
