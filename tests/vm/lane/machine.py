# SPDX-License-Identifier: Apache-2.0
"""One guest: QEMU without KVM, its output line by line, and an end in any case."""

from __future__ import annotations

import re
import selectors
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from lane.debian import Kernel
from lane.refusal import Refusal
from lane.releases import Release

MEMORY = "1024"  # MiB
FIRST_LINE = "guest: Linux"
LAST_LINE = re.compile(r"^guest: exit (-?\d+)$")
# Seconds in which a guest that boots has said its first line; with nothing beside it takes a quarter of them.
BOOT = 120


class Guest:
    """A guest's run, as far as its output tells. ``code`` is None as long as it has not ended well."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self.show = show
        self.booted = False
        self.code: int | None = None
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Take what came over the serial line."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line.decode("utf-8", "replace").rstrip("\r"))

    def _line(self, line: str) -> None:
        self.booted = self.booted or line.startswith(FIRST_LINE)
        ended = LAST_LINE.match(line)
        if ended:
            self.code = int(ended[1])
        else:
            self.show(line)


def boot(release: Release, kernel: Kernel, files: Path, console: Path, show: Callable[[str], None]) -> Guest:
    """Boot the kernel with ``files`` as its file system; return when the guest is off.

    The kernel's messages go to ``console``. Raises :class:`Refusal` without QEMU.
    """
    wanted = release.architecture
    if shutil.which(wanted.program) is None:
        raise Refusal(f"{wanted.program} is missing (Debian package {wanted.package})")
    return follow(_command(release, kernel, files, console), show, limit=release.limit)


def follow(command: list[str], show: Callable[[str], None], limit: float, boot: float = BOOT) -> Guest:
    """Run QEMU and hand on what the guest says until it is off, or the time is up (seconds)."""
    guest = Guest(show)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            _hand_on(process, guest, boot, limit)
        finally:
            process.kill()
    return guest


def _command(release: Release, kernel: Kernel, files: Path, console: Path) -> list[str]:
    wanted = release.architecture
    arguments = f"console={wanted.console} loglevel=5 panic=-1 rdinit=/init -- /dev/{wanted.port}"
    return [
        *(wanted.program, *wanted.machine, "-accel", "tcg", "-cpu", release.processor),
        *("-smp", str(release.processors), "-m", MEMORY),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", str(kernel.image), "-initrd", str(files), "-append", arguments),
        *("-serial", f"file:{console}", *wanted.channel),
    ]


def _hand_on(process: subprocess.Popen[bytes], guest: Guest, boot: float, limit: float) -> None:
    """Hand on the output until it ends or the time is up."""
    assert process.stdout is not None
    began = time.monotonic()
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        while (left := began + (limit if guest.booted else boot) - time.monotonic()) > 0:
            if waiting.select(left):
                data = process.stdout.read1()  # type: ignore[attr-defined]
                if not data:
                    return
                guest.take(data)
    guest.show(f"the guest was ended after {time.monotonic() - began:.0f} s")
