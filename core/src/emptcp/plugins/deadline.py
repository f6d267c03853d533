# SPDX-License-Identifier: Apache-2.0
"""A limit on the time that a plugin's code may take, so that one that hangs holds up nobody for long."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN = 1.0
"""Seconds after which it is interrupted once more, if it went on all the same."""


class Overdue(BaseException):
    """What interrupts the plugin's code. No :class:`Exception`, which strangers' code often catches."""


def limit() -> float:
    """Return the seconds that a hook, or the import of a plugin's module, may take: ``EMPTCP_HOOK_LIMIT``."""
    try:
        return max(0.1, float(os.environ.get("EMPTCP_HOOK_LIMIT", "30")))
    except ValueError:
        return 30.0


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise :class:`Overdue` in the block when it takes longer.

    By SIGALRM, so only in the main thread; where something else is due earlier by that signal, as a block
    around this one, it stays so. Code that waits in a system call or computes in Python is interrupted; a
    loop in a C library is not.
    """
    due, again = signal.getitimer(signal.ITIMER_REAL)
    if 0 < due <= seconds or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Overdue(f"it took longer than {seconds:g} s")

    before, began = signal.signal(signal.SIGALRM, interrupt), time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if due:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, due - (time.monotonic() - began)), again)
