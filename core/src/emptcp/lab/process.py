# SPDX-License-Identifier: Apache-2.0
"""Children that die with their parent, and telling a process from a later one with the same pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# pdeathsig is set by setpriv between fork and exec: subprocess's preexec_fn can deadlock with threads.
DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")


@dataclass(frozen=True, slots=True)
class Identity:
    """A process for good: its pid, and when it started (clock ticks since boot, proc(5) field 22)."""

    pid: int
    started: int

    @staticmethod
    def of(pid: int) -> Identity | None:
        """The process that has this pid now; ``None`` when there is none."""
        started = start_time(pid)
        return None if started is None else Identity(pid, started)

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; ``None`` when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name, in parentheses, may hold spaces and parentheses of its own.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def start(
    command: Sequence[str],
    *,
    dies_with_us: bool = True,
    stdin: int | IO[str] | None = subprocess.DEVNULL,
    stdout: int | IO[str] | None = None,
    stderr: int | IO[str] | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start a child in a session of its own, so that Ctrl-C reaches us alone and we end it in order.

    ``dies_with_us`` binds it to the *thread* that calls this (prctl(2), PR_SET_PDEATHSIG): call it from
    one that lives as long as the child should.
    """
    prefix = DIES_WITH_PARENT if dies_with_us else ()
    return subprocess.Popen(
        [*prefix, *command],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        text=True,
        start_new_session=True,
    )


def end(child: subprocess.Popen[str], *, patience: float = 2.0) -> None:
    """Ask a child to end, kill it when ``patience`` seconds were not enough, and reap it."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def kill(identities: Sequence[Identity], *, patience: float = 2.0) -> None:
    """Kill exactly these processes and wait until they are gone, at most ``patience`` seconds."""
    for identity in identities:
        if identity.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(identity.pid, signal.SIGKILL)
    deadline = time.monotonic() + patience
    while any(identity.alive for identity in identities) and time.monotonic() < deadline:
        time.sleep(0.005)


def go_first() -> None:
    """Let the calling thread run before the machine's other work: the bottleneck is to be the lab's links."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -20)
