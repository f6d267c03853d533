# SPDX-License-Identifier: Apache-2.0
"""What is printed again and again: redrawn in a terminal, else one after the other."""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

_OPEN, _CLOSE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def interval(text: str) -> float:
    """Read the seconds between two looks."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"'{text}' is no time from 0.1 to 3600 seconds")
    return seconds


def redraw(lines: Callable[[], Sequence[str]], every: float) -> int:
    """Print lines every so many seconds until Ctrl-C, in a terminal also until q; return the exit code.

    In a terminal they are cut to its size and stand on its other screen, so that what was there comes back.
    """
    try:
        if not sys.stdout.isatty():
            while True:
                print("\n".join([*lines(), ""]), flush=True)
                time.sleep(every)
        with _screen():
            while True:
                _draw(lines())
                if _quits_within(every):
                    return 0
    except KeyboardInterrupt:
        return 0


def _draw(lines: Sequence[str]) -> None:
    width, height = os.get_terminal_size(sys.stdout.fileno())
    shown = (
        lines if len(lines) <= height else [*lines[: height - 1], f"... {len(lines) - height + 1} lines more"]
    )
    text = "\r\n".join(line[:width] + _END_OF_LINE for line in shown)
    sys.stdout.write(f"{_HOME}{text}{_END_OF_SCREEN}")
    sys.stdout.flush()


def _quits_within(seconds: float) -> bool:
    """Wait; return True at once when q is pressed."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if not sys.stdin.isatty():
            time.sleep(left)
        elif select.select([sys.stdin], [], [], left)[0]:
            pressed = os.read(sys.stdin.fileno(), 64)
            if not pressed or b"q" in pressed:
                return True
    return False


@contextmanager
def _screen() -> Iterator[None]:
    import termios
    import tty

    keys = sys.stdin.isatty()
    before = termios.tcgetattr(sys.stdin) if keys else None
    try:
        if keys:
            tty.setcbreak(sys.stdin)
        sys.stdout.write(_OPEN)
        yield
    finally:
        sys.stdout.write(_CLOSE)
        sys.stdout.flush()
        if before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
