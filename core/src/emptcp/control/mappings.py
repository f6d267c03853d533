# SPDX-License-Identifier: Apache-2.0
"""Subflows whose data lost its mapping, as data packets that pass tell.

A connection with one subflow falls back to plain TCP when its DSS is gone (RFC 8684 section 3.7), and says
nothing. On a hop between, data then comes in with DSS and goes out without, or has none any more. Linux puts
a DSS on every packet with data. RFC 8684 does not ask for that, so one without is no proof, but several are.
Where a program took it off before anything could be seen (XDP), or from the first data on, there never was
one: then several make it a suspect, and so does plain TCP.
"""

from __future__ import annotations

from emptcp.control.streaks import Ends, Streaks, is_told, lately
from emptcp.packet.decode import Decoded


class Mappings:
    """Which subflows had a DSS lately."""

    def __init__(self) -> None:
        self._streaks = Streaks()

    def lost(self, now: float, device: str, ends: Ends, packet: Decoded) -> bool:
        """Take notice of a packet with data; return whether it tells that the subflow lost its mapping."""
        if _is_mptcp(packet):
            self._streaks.good(now, device, ends)
            return False
        seen = self._streaks.of(ends)
        return lately(now, seen.good) and is_told(seen, device)

    def suspicious(self, now: float, device: str, leaves: bool, ends: Ends, packet: Decoded) -> bool:
        """Take notice of the same packet; return whether too many had nothing of MPTCP."""
        place = device, leaves
        if _is_mptcp(packet):
            self._streaks.good(now, place, ends)
            return False
        return is_told(self._streaks.of(ends), place)


def _is_mptcp(packet: Decoded) -> bool:
    return packet.tcp is None or bool(packet.tcp.mptcp)
