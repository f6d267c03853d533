# SPDX-License-Identifier: Apache-2.0
"""An independent reader of captures: tshark, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

Shark = Callable[..., list[dict[str, str]]]


@pytest.fixture(scope="session")
def tshark() -> Shark:
    """Return a function (capture, field names, more arguments) -> one dict of fields per packet."""
    program = shutil.which("tshark")
    if program is None:
        pytest.skip("tshark is not installed: nothing to compare with")

    def shown(capture: Path, names: Sequence[str], *more: str) -> list[dict[str, str]]:
        fields = [word for name in names for word in ("-e", name)]
        command = [program, "-n", "-r", str(capture), "-T", "fields", "-E", "separator=/t", *more, *fields]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        lines = done.stdout.split("\n")[:-1]
        return [dict(zip(names, line.split("\t"), strict=True)) for line in lines]

    return shown
