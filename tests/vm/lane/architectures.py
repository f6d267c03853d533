# SPDX-License-Identifier: Apache-2.0
"""The processors that guests have: what Debian, the kernel and QEMU call them, and how each boots."""

from __future__ import annotations

import platform
from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """A kind of processor, by Debian's name and by the kernel's (``uname -m``).

    ``package`` is Debian's package of its QEMU, ``machine`` what QEMU is told of the machine. The kernel's
    messages come over the ``console``; a second ``port``, which ``channel`` adds, is the tests' own.
    """

    debian: str
    kernel: str
    package: str
    machine: tuple[str, ...]
    console: str
    port: str
    channel: tuple[str, ...]

    @property
    def native(self) -> bool:
        """Whether this machine has such a processor itself."""
        return platform.machine() == self.kernel

    @property
    def program(self) -> str:
        """QEMU for it."""
        return f"qemu-system-{self.kernel}"


AMD64 = Architecture(
    debian="amd64",
    kernel="x86_64",
    package="qemu-system-x86",
    machine=(),
    console="ttyS0",
    port="ttyS1",
    channel=("-serial", "stdio"),
)
# QEMU's machine for it has one serial port of its own, the other is a card.
ARM64 = Architecture(
    debian="arm64",
    kernel="aarch64",
    package="qemu-system-arm",
    machine=("-machine", "virt"),
    console="ttyAMA0",
    port="ttyS0",
    channel=("-chardev", "stdio,id=port", "-device", "pci-serial,chardev=port"),
)
