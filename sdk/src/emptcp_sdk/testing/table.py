# SPDX-License-Identifier: Apache-2.0
"""One format for tables of packets: each row is a test, and with ``--packet-times`` a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .everywhere import Everywhere


@dataclass(frozen=True)
class Row:
    """A packet, and what has to become of it.

    ``out`` is the packet that comes out, ``None``: as it came. ``reason`` is why it was left alone, a name of
    ``enum emptcp_reason`` in small letters. ``before`` are packets that come first, such as the SYN of the
    subflow. ``do`` (one actor) and ``when`` are as in a policy file, and take the place of what :meth:`check`
    is given for the whole table.
    """

    name: str
    packet: bytes
    out: bytes | None = None
    verdict: str = "pass"
    reason: str | None = None
    before: Sequence[bytes] = ()
    do: str = ""
    when: str = ""

    def __str__(self) -> str:
        return self.name

    def check(self, run_packet: Everywhere, *do: str, when: str = "") -> None:
        """Run the row's packet at every place; raise AssertionError where another thing comes of it."""
        from emptcp.packet.decode import decode

        stages, selectors = (self.do,) if self.do else do, self.when or when
        for earlier in self.before:
            run_packet(earlier, *stages, when=selectors)
        found = run_packet(self.packet, *stages, when=selectors)
        wanted = self.packet if self.out is None else self.out
        assert found.verdict == self.verdict, f"{self}: {found}"
        assert found.reason == self.reason, f"{self}: {found}"
        assert decode(found.data) == decode(wanted), self.name
