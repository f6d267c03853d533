# SPDX-License-Identifier: Apache-2.0
"""A subflow as a controller sees it: what the kernel says of it now, and what the controller wants of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from emptcp.control.wishes import Wishes
from emptcp.mptcp.measured import Measured
from emptcp.mptcp.sockets import BACKUP, JOINING, REQUEST_BACKUP, SNDBUF_LIMITED, STATES

if TYPE_CHECKING:
    from emptcp.control.path import Path
    from emptcp.plugins.occasions import Address, Endpoint

_NO_RTT = 0xFFFFFFFF
_RATE_LIMIT = 0xFFFFFFFE


class ConnectionSubflow:
    """One subflow. Times are in seconds, rates in bytes per second, all else in bytes unless it says packets.

    It is the same object in each tick, so a controller may keep it, and what it knows, in a dictionary.
    """

    def __init__(
        self, measured: Measured, settings: Mapping[str, int] | None = None, links: Sequence[Path] = ()
    ) -> None:
        self.key = measured.key
        self._links = links
        self.path: Path | None = None
        """The path of the policy file that it uses; ``None``: none of those that the controller names."""
        self._now = measured
        self.record = b""
        """What the kernel said last, as it wrote it."""
        self.wishes = Wishes(settings)
        """What is set on it."""

    def see(self, measured: Measured, record: bytes = b"") -> None:
        """Take what the kernel says now."""
        self._now, self.record = measured, record

    @property
    def of_connection(self) -> tuple[int, int, bool]:
        """What the kernel says with it of its connection: what is queued there, and not acknowledged, and
        whether the application waits until the send buffer has room."""
        return self._now.queued, self._now.outstanding, bool(self._now.flags & SNDBUF_LIMITED)

    # What the kernel says

    @property
    def token(self) -> int:
        """The token of its connection on this host."""
        return self._now.token

    @cached_property
    def local(self) -> Endpoint:
        """This host's address and port."""
        return _address(self._now.local, self._now.family), self._now.local_port

    @cached_property
    def remote(self) -> Endpoint:
        """The peer's address and port."""
        return _address(self._now.remote, self._now.family), self._now.remote_port

    @property
    def device(self) -> int:
        """The ifindex of the device that its packets come in by, else that it is bound to; 0: unknown."""
        return self._now.device or self._now.bound_device

    @property
    def requests_backup(self) -> bool:
        """Whether the local endpoint makes it backup."""
        return bool(self._now.flags & REQUEST_BACKUP)

    @property
    def is_told_backup(self) -> bool:
        """Whether the peer asked for backup, or a policy did in its name."""
        return bool(self._now.flags & BACKUP)

    @property
    def open(self) -> bool:
        """Whether both ends look at MPTCP options that arrive on it."""
        return self._now.open

    @property
    def state(self) -> str:
        """Its state as `ss` names it; ``joining`` until its join is answered."""
        if self._now.flags & JOINING:
            return "joining"
        return STATES.get(self._now.state, str(self._now.state))

    @property
    def rtt(self) -> float:
        """The smoothed round-trip time; 0 before the first sample."""
        return self._now.srtt / 8e6

    @property
    def rtt_deviation(self) -> float:
        """The mean deviation of round-trip times."""
        return self._now.rtt_deviation / 4e6

    @property
    def min_rtt(self) -> float:
        """The least round-trip time of the last minutes; 0 before the first sample."""
        return self._now.min_rtt / 1e6 if self._now.min_rtt != _NO_RTT else 0.0

    @property
    def cwnd(self) -> int:
        """The congestion window."""
        return self._now.cwnd * self._now.mss

    @property
    def window(self) -> int:
        """What the other end takes beyond what it has acknowledged, of the whole connection; told with each
        acknowledgement, so what a subflow without any says is old."""
        return self._now.send_window

    @property
    def mss(self) -> int:
        """Payload of a full segment; 0 at a hop, which does not know."""
        return self._now.mss

    @property
    def pacing_rate(self) -> float:
        """The rate at which the kernel sends on it."""
        return float(self._now.pacing_rate)

    @property
    def delivery_rate(self) -> float:
        """The rate at which the last flights arrived; 0 before the first sample. At a hop, that of what
        passed in both directions since the tick before, headers included."""
        if not self._now.rate_interval:
            return 0.0
        return self._now.rate_delivered * (self._now.mss or 1) * 1e6 / self._now.rate_interval

    @property
    def unacked(self) -> int:
        """What was sent and is not acknowledged."""
        return (self._now.snd_nxt - self._now.snd_una) % (1 << 32)

    @property
    def not_sent(self) -> int:
        """What the connection gave it and it did not send yet."""
        return (self._now.write_seq - self._now.snd_nxt) % (1 << 32)

    @property
    def sent(self) -> int:
        """All that was sent, what was sent again included."""
        return self._now.bytes_sent

    @property
    def acked(self) -> int:
        """All that was acknowledged; the kernel counts the SYN as one byte."""
        return self._now.bytes_acked

    @property
    def received(self) -> int:
        """All that came in."""
        return self._now.bytes_received

    @property
    def retransmissions(self) -> int:
        """Packets that were sent again."""
        return self._now.retransmissions

    def completion(self, size: float = 0) -> float:
        """Return the seconds in which ``size`` bytes more are delivered by it, as ECF reckons: a round trip
        for each full window of what waits before them, and one more. Infinite while nothing is known.
        """
        window, rtt = self.cwnd, self.rtt
        return (1 + (self.not_sent + size) / window) * rtt if window and rtt else math.inf

    # What the controller wants

    @property
    def backup(self) -> bool:
        """Whether it carries data only while no other works; what was set last, else what the kernel says.

        ``None`` gives back what was there before the controller.
        """
        wanted = self.wishes.wanted.get("backup")
        return bool(wanted) if wanted is not None else self._told

    @backup.setter
    def backup(self, wanted: bool | None) -> None:
        as_it_is = "backup" not in self.wishes.in_force and wanted == self._told
        self.wishes.want("backup", None if wanted is None or as_it_is else int(wanted))

    @property
    def backup_by(self) -> str:
        """Who made it backup: ``controller``, ``kernel`` (the local endpoint) or ``peer``; else empty."""
        if self.wishes.in_force.get("backup"):
            return "controller"
        if self.requests_backup:
            return "kernel"
        return "peer" if self.is_told_backup else ""

    @property
    def rate(self) -> float | None:
        """The rate that it may send at; ``None``: as fast as it can."""
        return self.wishes.wanted.get("rate")

    @rate.setter
    def rate(self, wanted: float | None) -> None:
        if wanted is not None and not 0 < wanted < math.inf:
            raise ValueError(f"a rate is more than 0 bytes per second, and {wanted!r} is not")
        self.wishes.want("rate", None if wanted is None else max(1000, min(round(wanted), _RATE_LIMIT)))

    @property
    def steer(self) -> Path | None:
        """The path by whose link it leaves, or that one's name; ``None``: the one that this host chooses.

        Raises :class:`ValueError` for a path that the controller was not given.
        """
        wanted = self.wishes.wanted.get("steer")
        return self._links[wanted] if wanted is not None and wanted < len(self._links) else None

    @steer.setter
    def steer(self, wanted: Path | str | None) -> None:
        names = [path.name for path in self._links]
        name = wanted if wanted is None or isinstance(wanted, str) else wanted.name
        if name is not None and name not in names:
            raise ValueError(f"it has no path '{name}', only {', '.join(names) or 'none'}")
        self.wishes.want("steer", None if name is None else names.index(name))

    @property
    def _told(self) -> bool:
        return self.is_told_backup or self.requests_backup

    def __repr__(self) -> str:
        return f"<subflow {self.local[0]}:{self.local[1]} > {self.remote[0]}:{self.remote[1]}>"


def _address(raw: bytes, family: int) -> Address:
    if family == 2:
        return ip_address(raw[:4])
    found = IPv6Address(raw)
    return found.ipv4_mapped or found
