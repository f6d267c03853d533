# SPDX-License-Identifier: Apache-2.0
"""The process that rolls a change back unless it is confirmed: ``python -m emptcp.control.probation NUMBER``.

It is started by ``emptcp apply --confirm`` and outlives it; it ends when the change was confirmed, rolled
back, or replaced by another one on probation.
"""

from __future__ import annotations

import subprocess
import sys
import time

from emptcp.chain import history

LOOK_EVERY = 0.2
"""Seconds between looks whether the change was confirmed."""


def start(number: int) -> None:
    """Start the process for the change of this number, in a session of its own."""
    subprocess.Popen(
        [sys.executable, "-m", "emptcp.control.probation", str(number)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait(number: int) -> bool:
    """Wait until the probation of a change ends; tell whether its time was over."""
    while (found := history.probation()) is not None and found.number == number:
        if found.over:
            return True
        time.sleep(min(LOOK_EVERY, max(found.deadline - time.time(), 0.01)))
    return False


def main(number: int) -> None:
    """Roll the change back when its time is over."""
    if wait(number):
        from emptcp.chain import apply

        apply.end_overdue()


if __name__ == "__main__":
    main(int(sys.argv[1]))
