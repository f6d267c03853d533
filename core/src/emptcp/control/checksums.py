# SPDX-License-Identifier: Apache-2.0
"""Subflows whose packets go out with a wrong TCP checksum, as packets that pass tell.

A packet that comes in wrong goes out wrong, and nobody here is to blame. So it tells when packets go out
wrong that did not come so: others were right lately, here or where they came in, or none came in at all.
Where a program changed them before they could be seen (XDP), those that seem to come in wrong make it a
suspect, no more.
"""

from __future__ import annotations

from emptcp.control.streaks import Ends, Streaks, is_told, lately
from emptcp.packet import checksum
from emptcp.packet.decode import Decoded

LONGEST = 1500
"""Bytes of a packet that is surely a single one. A longer one may be several that were merged unchanged."""


class Checksums:
    """How the checksums of subflows' packets were lately."""

    def __init__(self) -> None:
        self._streaks = Streaks()

    def spoilt(self, now: float, device: str, ends: Ends, right: bool | None, leaves: bool) -> bool:
        """Take notice of a packet; return whether it tells that the subflow's packets are spoilt here.

        ``right``: see :func:`is_right`. ``leaves``: it goes out by the device; else it came in.
        """
        if right is None:
            return False
        if right:
            self._streaks.good(now, (device, leaves), ends)
            return False
        seen = self._streaks.of(ends)
        if not leaves:
            seen.came_bad = now
            return False
        return (lately(now, seen.good) or not lately(now, seen.came_bad)) and is_told(seen, (device, True))

    def suspicious(self, device: str, ends: Ends, right: bool | None) -> bool:
        """Take notice of a packet that came in, after :meth:`spoilt`; return whether too many were wrong."""
        return right is False and is_told(self._streaks.of(ends), (device, False))


def is_right(packet: Decoded, filled: bool, single: bool = False) -> bool | None:
    """Return whether a packet's TCP checksum is right; ``None``: it can't be told.

    ``single``: the kernel says that it is not several that were merged.

    One that is not ``filled`` in yet (CHECKSUM_PARTIAL) must be the sum of the pseudo-header, to which the
    device adds what follows: what was done to the rest of such a packet can't be wrong.
    """
    if packet.tcp is None or packet.ip is None or packet.tcp_checksum_right is None:
        return None
    if filled:
        return packet.tcp_checksum_right if single or packet.ip_end <= LONGEST else None
    length = packet.ip_end - packet.tcp.offset
    sum_of_pseudo = checksum.ones_sum(
        checksum.pseudo_header(packet.ip.src.packed, packet.ip.dst.packed, length)
    )
    return packet.tcp.checksum % 0xFFFF == sum_of_pseudo % 0xFFFF
