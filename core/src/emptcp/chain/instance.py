# SPDX-License-Identifier: Apache-2.0
"""One resident process per machine: a lock file that the kernel frees however the process ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from emptcp.chain.pins import naming
from emptcp.errors import EmptcpError

LOCK = "run.lock"
GUARDS = "guards"

_PATIENCE = 0.2
"""Seconds that the lock is waited for: somebody may just ask whether it is free."""


class Instance:
    """The lock of the resident process in ``folder``, held inside a ``with`` block.

    ``guards`` tells others that it guards the policies. Raises EmptcpError on entry when another process
    holds it.
    """

    def __init__(self, folder: Path, guards: bool = False) -> None:
        self._path = folder / LOCK
        self._told = f"{os.getpid()} {GUARDS}\n" if guards else f"{os.getpid()}\n"
        self._file: int | None = None

    def __enter__(self) -> Instance:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _lock_soon(descriptor):
            owner, _ = _told(descriptor)
            os.close(descriptor)
            raise EmptcpError(
                f"'emptcp run' is there already{f', as process {owner}' if owner else ''}",
                fix=f"One is enough for all tables; stop it first: kill {owner or 'PID'}",
            )
        with naming(self._path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, self._told.encode(), 0)
        self._file = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The file stays: whoever removed it could take it from under the next process.
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def resident(folder: Path) -> int | None:
    """Return the process id of the resident process whose lock is in ``folder``, or None without one."""
    return _holder(folder)[0]


def guarding(folder: Path) -> int | None:
    """Return the process id of the resident process that guards the policies, or None without one."""
    owner, duties = _holder(folder)
    return owner if GUARDS in duties else None


def _holder(folder: Path) -> tuple[int | None, list[str]]:
    """Return whose lock it is and what that process is for."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, []
    try:
        # Shared: two that ask at the same time are not in each other's way.
        return (None, []) if _lock(descriptor, fcntl.LOCK_SH) else _told(descriptor)
    finally:
        os.close(descriptor)


def _lock_soon(descriptor: int) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while not (locked := _lock(descriptor, fcntl.LOCK_EX)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return locked


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _told(descriptor: int) -> tuple[int | None, list[str]]:
    words = os.pread(descriptor, 64, 0).decode(errors="replace").split()
    owner = int(words[0]) if words and words[0].isdecimal() else None
    return owner, words[1:]
