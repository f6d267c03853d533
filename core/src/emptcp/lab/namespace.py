# SPDX-License-Identifier: Apache-2.0
"""Network namespaces by name: make, enter, look inside, remove. Uses iproute2, so ``ip netns`` sees them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from emptcp.errors import EmptcpError
from emptcp.lab.process import Identity

FOLDER = Path("/run/netns")
CLONE_NEWNET = 0x40000000

Result = TypeVar("Result")


def file_of(name: str) -> Path:
    """Where the namespace's handle stands."""
    return FOLDER / name


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
        raise EmptcpError(f"the lab needs the command '{tool}'", fix="install it: apt install iproute2")
    command = [tool, *(("-netns", netns) if netns else ()), *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        raise EmptcpError(_refusal(command, done.stderr), fix="")
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


def call(name: str, function: Callable[[], Result]) -> Result:
    """Run a function in a namespace and return what it returns, or raise what it raises.

    setns(2) concerns one thread, so the function gets a thread of its own and the caller stays where it is.
    """
    outcome: Future[Result] = Future()
    thread = threading.Thread(target=_enter_and_run, args=(name, function, outcome), daemon=True)
    thread.start()
    return outcome.result()


def _enter_and_run(name: str, function: Callable[[], Result], outcome: Future[Result]) -> None:
    try:
        enter(name)
        outcome.set_result(function())
    except BaseException as error:
        outcome.set_exception(error)


def enter(name: str) -> None:
    """Move the calling thread into a namespace, for good."""
    descriptor = os.open(file_of(name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns to {name}")
    finally:
        os.close(descriptor)
