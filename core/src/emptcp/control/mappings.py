# SPDX-License-Identifier: Apache-2.0
"""Subflows whose data lost its mapping, or is sent again and again, as data packets that pass tell.

A connection with one subflow falls back to plain TCP when its DSS is gone (RFC 8684 section 3.7), and says
nothing. On a hop between, data then comes in with DSS and goes out without, or has none any more. Linux puts
a DSS on every packet with data. RFC 8684 does not ask for that, so one without is no proof, but several are.
Where a program took it off before anything could be seen (XDP), or from the first data on, there never was
one: then several make it a suspect, and so does plain TCP.

Where mappings or data acknowledgements are there but wrong, or ACKs alone have lost their DSS, TCP is content
and the connection stands: Linux sends the oldest data again, on whichever subflow, a few times a second. So
does a sound one now and then, what was lost on another path; that makes no more than a suspect either.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from emptcp.control.streaks import IN_A_ROW, MOST, Ends, Streaks, is_told, lately
from emptcp.packet.decode import Decoded
from emptcp.packet.mptcp import Dss

AT_MOST_EVERY = 1.0
"""Seconds between two times that the same subflow is a suspect: it sends again for as long as it stands."""


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


@dataclass
class _Newest:
    """The newest mapping of a subflow, when a packet came last, and how many older mappings came since."""

    dsn: int
    subflow_seq: int
    when: float
    older: int = 0
    told: float = float("-inf")


class Resent:
    """What data was the newest on subflows lately."""

    def __init__(self) -> None:
        self._newest: OrderedDict[tuple[Hashable, Ends], _Newest] = OrderedDict()

    def suspicious(self, now: float, place: Hashable, ends: Ends, packet: Decoded) -> bool:
        """Take notice of a packet with data; return whether too much of it was there before.

        One mapping may stand on many packets, and TCP may send one again: neither has a later place in the
        subflow.
        """
        dss = _mapping(packet)
        if dss is None or dss.dsn is None:
            return False
        newest = self._newest.get((place, ends))
        if newest is None or not lately(now, newest.when) or _is_behind(newest.dsn, dss.dsn):
            self._keep((place, ends), _Newest(dss.dsn, dss.subflow_seq, now))
            return False
        newest.when = now
        if not _is_behind(newest.subflow_seq, dss.subflow_seq):
            return False
        newest.subflow_seq = dss.subflow_seq
        newest.older += 1
        if newest.older < IN_A_ROW or now - newest.told < AT_MOST_EVERY:
            return False
        newest.told = now
        return True

    def _keep(self, known: tuple[Hashable, Ends], newest: _Newest) -> None:
        self._newest[known] = newest
        self._newest.move_to_end(known)
        if len(self._newest) > MOST:
            self._newest.popitem(last=False)


def _mapping(packet: Decoded) -> Dss | None:
    options = (placed.option for placed in packet.tcp.mptcp) if packet.tcp is not None else ()
    return next((one for one in options if isinstance(one, Dss)), None)


def _is_behind(one: int, other: int) -> bool:
    """Return whether a sequence number comes before another, by their low 32 bits, which come round."""
    return 0 < (other - one) & 0xFFFFFFFF < 1 << 31
