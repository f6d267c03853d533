# SPDX-License-Identifier: Apache-2.0
"""Wait for what the kernel or another process does in its own time."""

from __future__ import annotations

import linecache
import time
from collections.abc import Callable

PATIENCE = 30.0
"""Seconds: many times what anything takes, since a busy machine makes a test slow and not wrong."""
PAUSE = 0.02
"""Seconds between two looks."""


def wait_until(
    holds: Callable[[], object],
    seconds: float = PATIENCE,
    told: Callable[[], object] | None = None,
    *,
    meanwhile: Callable[[], object] | None = None,
) -> None:
    """Look again and again until ``holds()`` is true; the last look begins when ``seconds`` are over.

    ``told()`` is what there is instead, for the message: a log, a count. ``meanwhile()`` is done after each
    look that was in vain, such as to let packets pass.

    :raises AssertionError: it did not hold in time; the message says what was waited for.
    """
    __tracebackhide__ = True
    deadline = time.monotonic() + seconds
    while True:
        last = time.monotonic() >= deadline
        if holds():
            return
        if last:
            instead = f": {told()}" if told is not None else ""
            raise AssertionError(f"not within {seconds:g} s: {_text(holds)}{instead}")
        if meanwhile is not None:
            meanwhile()
        time.sleep(PAUSE)


def _text(holds: Callable[[], object]) -> str:
    """Return the line of the source on which it begins, or what it is called."""
    code = getattr(holds, "__code__", None)
    line = linecache.getline(code.co_filename, code.co_firstlineno).strip() if code is not None else ""
    return line or getattr(holds, "__qualname__", repr(holds))
