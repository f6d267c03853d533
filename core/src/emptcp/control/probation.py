# SPDX-License-Identifier: Apache-2.0
"""The process that takes a change back unless it is confirmed: ``python -m emptcp.control.probation``.

It is started by ``emptcp apply --confirm`` and outlives it; it ends when the change was confirmed, taken
back, or replaced by another one on probation.
"""

from __future__ import annotations

import subprocess
import sys
import time

from emptcp.chain import probation

LOOK_EVERY = 0.2
"""Seconds between looks whether the change was confirmed."""


def start() -> None:
    """Start the process for the change that is on probation now, in a session of its own."""
    # -P: the working directory may hold anything, and this runs as root.
    subprocess.Popen(
        [sys.executable, "-P", "-m", "emptcp.control.probation"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait() -> bool:
    """Wait until the probation of now ends; tell whether its time was over."""
    first = probation.current()
    while first is not None and probation.current() == first:
        if first.left <= 0:
            return True
        time.sleep(min(LOOK_EVERY, max(first.left, 0.01)))
    return False


def main() -> None:
    """Take the change back when its time is over."""
    if wait():
        from emptcp.chain import apply

        apply.end_overdue()


if __name__ == "__main__":
    main()
