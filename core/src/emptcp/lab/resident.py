# SPDX-License-Identifier: Apache-2.0
"""An ``emptcp run`` for as long as a block lasts, for actors that need a process in user space."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from emptcp.errors import EmptcpError

PATIENCE = 30.0
"""Seconds in which it has to be ready, and to end when it is told to: a busy machine takes its time."""


@contextmanager
def resident(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``emptcp run`` with some options in this process's environment, from when it is ready.

    Raises EmptcpError with what it said when it does not get there.
    """
    command = [sys.executable, "-P", "-m", "emptcp.cli.main", "run", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            wait_for(process, b"ready")
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE)


def wait_for(process: subprocess.Popen[bytes], words: bytes) -> None:
    """Read what it says until these words come. Raises EmptcpError with what came instead."""
    assert process.stderr is not None
    said, deadline = b"", time.monotonic() + PATIENCE
    poll = select.poll()  # select() knows no descriptor above 1023
    poll.register(process.stderr, select.POLLIN)
    while words not in said:
        ready = poll.poll(1000 * max(0, deadline - time.monotonic()))
        piece = os.read(process.stderr.fileno(), 4096) if ready else b""
        said += piece
        if not piece:
            why = said.decode(errors="replace").strip() or "it said nothing"
            wanted = "does not start" if words == b"ready" else f"does not say '{words.decode()}'"
            raise EmptcpError(f"emptcp run {wanted}: {why}", fix="Run: emptcp doctor")
