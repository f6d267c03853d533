# SPDX-License-Identifier: Apache-2.0
"""A host of the lab: run commands in it, read its counters, change its settings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.lab import namespace, process
from emptcp.mptcp.counters import read_counters

Answer = TypeVar("Answer")
RECEIVED, SENT = 0, 8


@dataclass(frozen=True, slots=True)
class Host:
    """Host ``a`` or ``b`` of a lab, which is the network namespace ``netns``."""

    name: str
    netns: str
    children: list[subprocess.Popen[str]] = field(default_factory=list, repr=False, compare=False)

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command line that runs these arguments in the host.

        nsenter rather than ``ip netns exec``: the latter mounts a new /sys, and bpffs is gone from sight.
        """
        return ["nsenter", f"--net={namespace.file_of(self.netns)}", "--", *arguments]

    def run(
        self,
        arguments: Sequence[str],
        *,
        timeout: float = 30,
        check: bool = True,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host to its end and return what it printed.

        Raises EmptcpError when it fails (unless ``check`` is false) or takes over ``timeout`` seconds.
        """
        command = [*process.DIES_WITH_PARENT, *self.command(arguments)]
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise EmptcpError(f"{self._told(arguments)} took over {timeout:g} s") from None
        if check and done.returncode != 0:
            raise EmptcpError(f"{self._told(arguments)} failed: {_last_line(done)}")
        return done

    def start(
        self,
        arguments: Sequence[str],
        *,
        stdin: int | IO[str] | None = subprocess.DEVNULL,
        stdout: int | IO[str] | None = None,
        stderr: int | IO[str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command in the host and return at once; it is ended with the lab, or by ``process.end``.

        The command dies with the thread that started it.
        """
        child = process.start(self.command(arguments), stdin=stdin, stdout=stdout, stderr=stderr)
        self.children.append(child)
        return child

    def start_module(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        """Start one of our own Python modules in the host, with pipes to all three of its streams."""
        pipe = subprocess.PIPE
        return self.start(
            [sys.executable, "-P", "-m", module, *arguments], stdin=pipe, stdout=pipe, stderr=pipe
        )

    def call(self, action: Callable[[], Answer]) -> Answer:
        """Run a function in the host, in a thread of its own, and return what it returns."""
        return namespaces.call(namespaces.resolve(self.netns), action)

    def end_children(self) -> None:
        """End every command that was started here and still runs."""
        while self.children:
            process.end(self.children.pop())

    def counters(self) -> dict[str, int]:
        """The host's IP, TCP and MPTCP counters, named as nstat does (``MPTcpExtMPPrioRx``)."""
        return self.call(read_counters)

    def sent(self) -> dict[str, int]:
        """Bytes of frames that left each of the host's devices, without the loopback device."""
        return self.call(lambda: read_devices(SENT))

    def received(self) -> dict[str, int]:
        """Bytes of frames that came in by each of the host's devices, without the loopback device."""
        return self.call(lambda: read_devices(RECEIVED))

    def set(self, setting: str, value: str | int) -> None:
        """Change a sysctl of the host, such as ``net.ipv4.tcp_rmem``. Raises EmptcpError when refused."""
        file = Path("/proc/sys") / setting.replace(".", "/")
        try:
            self.call(lambda: _write(file, f"{value}\n"))
        except OSError as error:
            raise EmptcpError(f"{setting} can't be set to '{value}': {error.strerror}") from None

    def _told(self, arguments: Sequence[str]) -> str:
        return f"'{' '.join(arguments)}' in host {self.name}"


def read_devices(column: int) -> dict[str, int]:
    """One column of proc_net_dev(5) by device, for the calling thread's namespace."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    devices = {name.strip(): values.split() for name, _, values in (line.partition(":") for line in lines)}
    return {name: int(values[column]) for name, values in devices.items() if name != "lo"}


def _write(file: Path, text: str) -> None:
    # Path.write_text would truncate first, which some files under /proc/sys refuse.
    with file.open("r+") as handle:
        handle.write(text)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    said = (done.stderr or done.stdout).strip().splitlines()
    return said[-1] if said else f"exit status {done.returncode}"
