# SPDX-License-Identifier: Apache-2.0
"""The kernels that emptcp is run on, and what each needs to boot without KVM."""

from __future__ import annotations

from dataclasses import dataclass

from lane.architectures import AMD64, ARM64, Architecture
from lane.refusal import Refusal


@dataclass(frozen=True)
class Release:
    """A series of kernels: Debian's suite that has its cloud kernel, and the processor to boot it on.

    ``processors`` is how many of them a guest has, ``limit`` the seconds in which it is off. ``mptcp`` is
    whether Debian builds the kernel with MPTCP, ``tables`` whether every plugin's packets run there as well.
    """

    name: str
    suite: str
    processor: str = "qemu64"
    architecture: Architecture = AMD64
    processors: int = 1
    limit: float = 900
    mptcp: bool = True
    tables: bool = False


# Since 6.8 the kernel's allocator has cmpxchg16b inline. QEMU 7.2 garbles the flags around it, so that guests
# trap or panic at random; without the feature the kernel does without the instruction.
NO_CMPXCHG16B = "qemu64,-cx16"

RELEASES = {
    release.name: release
    for release in (
        Release("5.10", "bullseye", mptcp=False),
        Release("6.1", "bookworm"),
        Release("6.12", "trixie", NO_CMPXCHG16B),
        Release("7", "trixie-backports", NO_CMPXCHG16B),
        Release("arm64", "trixie-backports", "cortex-a72", ARM64, processors=2, limit=2400, tables=True),
    )
}


def release(name: str) -> Release:
    """Return the release of this name. Raises :class:`Refusal` for any other."""
    if name not in RELEASES:
        raise Refusal(f"there is no kernel '{name}' to boot; known: {', '.join(RELEASES)}")
    return RELEASES[name]
