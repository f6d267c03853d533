# SPDX-License-Identifier: Apache-2.0
"""One resident process per machine: a lock file that the kernel frees however the process ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from emptcp.chain.pins import naming
from emptcp.errors import EmptcpError

LOCK = "run.lock"


class Instance:
    """The lock of the resident process in ``folder``, held inside a ``with`` block.

    Raises EmptcpError on entry when another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._file: int | None = None

    def __enter__(self) -> Instance:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _lock(descriptor):
            owner = _pid(descriptor)
            os.close(descriptor)
            raise EmptcpError(
                f"'emptcp run' is there already{f', as process {owner}' if owner else ''}",
                fix=f"One is enough for all tables; stop it first: kill {owner or 'PID'}",
            )
        with naming(self._path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
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
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if _lock(descriptor) else _pid(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else None
