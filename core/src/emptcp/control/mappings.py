# SPDX-License-Identifier: Apache-2.0
"""Subflows whose data lost its mapping, as data packets that pass tell.

A connection with one subflow falls back to plain TCP when its DSS is gone (RFC 8684 section 3.7), and says
nothing. On a hop between, data then comes in with DSS and goes out without, or has none any more. Linux puts
a DSS on every packet with data. RFC 8684 does not ask for that, so one without is no proof, but several are.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from emptcp.packet.decode import Decoded
from emptcp.plugins.occasions import Endpoint

IN_A_ROW = 3
"""Packets with data and without any MPTCP option that tell."""

MEMORY = 10.0
"""Seconds after its last DSS in which a subflow is missed. Later its ports may be another connection's."""

MOST = 4096
"""Subflows that are remembered, each direction for itself; the one seen least recently gives way."""

Ends = tuple[Endpoint, Endpoint]


@dataclass
class _Seen:
    """When there was a DSS last, on any device, and by device how many packets in a row had none."""

    mapped: float = 0.0
    without: Counter[str] = field(default_factory=Counter)


class Mappings:
    """Which subflows had a DSS lately."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Ends, _Seen] = OrderedDict()

    def lost(self, now: float, device: str, packet: Decoded) -> Ends | None:
        """Take notice of a packet at ``now`` (seconds); return the ends of a subflow that lost its mapping.

        Each loss is told once.
        """
        if packet.tcp is None or packet.ip is None or not packet.payload:
            return None
        ends = (packet.ip.src, packet.tcp.sport), (packet.ip.dst, packet.tcp.dport)
        if packet.tcp.mptcp:
            self._remember(now, device, ends)
            return None
        seen = self._seen.get(ends)
        if seen is None or now - seen.mapped > MEMORY:
            return None
        seen.without[device] += 1
        return ends if seen.without[device] == IN_A_ROW else None

    def _remember(self, now: float, device: str, ends: Ends) -> None:
        seen = self._seen.setdefault(ends, _Seen())
        seen.mapped = now
        seen.without[device] = 0
        self._seen.move_to_end(ends)
        if len(self._seen) > MOST:
            self._seen.popitem(last=False)
