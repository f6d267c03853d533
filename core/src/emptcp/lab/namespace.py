# SPDX-License-Identifier: Apache-2.0
"""The lab's network namespaces, made, furnished and removed by iproute2, so that ``ip`` shows all of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from emptcp.errors import EmptcpError
from emptcp.hooks.namespaces import NAMED
from emptcp.lab.process import Identity


def file_of(name: str) -> Path:
    """Where the namespace's handle stands."""
    return NAMED / name


def exists(name: str) -> bool:
    """Whether there is a namespace of this name."""
    return file_of(name).exists()


def add(name: str) -> None:
    """Make a namespace."""
    ip(["netns", "add", name])


def remove(name: str) -> None:
    """Remove a namespace with all devices in it; nothing happens when it is gone already."""
    if exists(name):
        ip(["netns", "delete", name])


def ip(arguments: Sequence[str], *, netns: str | None = None) -> str:
    """Run one ``ip`` command and return what it printed."""
    return _iproute("ip", arguments, netns, None)


def ip_batch(lines: Sequence[str], *, netns: str) -> None:
    """Run many ``ip`` commands in a namespace by one process; the first that fails ends it."""
    _iproute("ip", ["-batch", "-"], netns, "\n".join(lines) + "\n")


def tc(arguments: Sequence[str], *, netns: str) -> str:
    """Run one ``tc`` command in a namespace and return what it printed."""
    return _iproute("tc", arguments, netns, None)


def _iproute(tool: str, arguments: Sequence[str], netns: str | None, text: str | None) -> str:
    if shutil.which(tool) is None:
        raise EmptcpError(f"the lab needs the command '{tool}'", fix="Install it: apt install iproute2")
    command = [tool, *(("-netns", netns) if netns else ()), *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        raise EmptcpError(_refusal(command, done.stderr))
    return done.stdout


def _refusal(command: Sequence[str], stderr: str) -> str:
    last = stderr.strip().splitlines() or ["no reason given"]
    return f"'{' '.join(command)}' failed: {last[0]}"


def processes(name: str) -> list[Identity]:
    """The processes whose main thread is in this namespace."""
    try:
        wanted = file_of(name).stat()
    except FileNotFoundError:
        return []
    return [found for pid in _pids() if (found := _inside(pid, (wanted.st_dev, wanted.st_ino)))]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _inside(pid: int, wanted: tuple[int, int]) -> Identity | None:
    try:
        here = Path(f"/proc/{pid}/ns/net").stat()
    except OSError:
        return None
    return Identity.of(pid) if (here.st_dev, here.st_ino) == wanted else None
