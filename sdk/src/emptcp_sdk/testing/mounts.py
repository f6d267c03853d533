# SPDX-License-Identifier: Apache-2.0
"""BPF file systems that tests leave mounted: emptcp mounts one in its run folder where it finds none."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path


def mounted(folder: Path) -> list[Path]:
    """Return the BPF file systems below ``folder``, the last mounted one first: one may cover another."""
    with open("/proc/self/mounts", encoding="utf-8") as lines:
        places = [fields[1] for fields in map(str.split, lines) if fields[2] == "bpf"]
    whole = (Path(place.encode().decode("unicode_escape")) for place in reversed(places))
    return [place for place in whole if place.is_relative_to(folder)]


def unmount(places: Iterable[Path]) -> None:
    """Unmount them, lazily: a process that a test started meanwhile may have a copy of the mount."""
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=10)
