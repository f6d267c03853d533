# SPDX-License-Identifier: Apache-2.0
"""What a path between two hosts is: speed, delay, queue, and the names and addresses at its ends."""

from __future__ import annotations

from dataclasses import dataclass

from emptcp.errors import EmptcpError

ETHERNET_HEADER = 14
MTU = 1500
MAX_PATHS = 8
SMALLEST_QUEUE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Path:
    """How one path behaves, the same in both directions.

    ``rate`` is in bit/s and counts whole Ethernet frames, as tc does: TCP's payload is about 5 % less.
    ``rtt`` is in seconds for there and back, on an idle link. ``queue`` is how many bytes wait before
    the link drops; ``None`` is one bandwidth-delay product, and at least 64 KiB. Paths that name the same
    ``link`` go by one, and share its rate and its queue.
    """

    rate: float = 100e6
    rtt: float = 0.020
    queue: int | None = None
    link: str = ""

    def __post_init__(self) -> None:
        if not 10e3 <= self.rate <= 100e9:
            raise EmptcpError(
                f"a path's rate is from 10 kbit/s to 100 Gbit/s, not {self.rate:g} bit/s",
                fix="Give the rate in bit/s, such as 100e6.",
            )
        if not 0 <= self.rtt <= 10:
            raise EmptcpError(
                f"a path's round-trip time is from 0 to 10 s, not {self.rtt:g} s",
                fix="Give the time in seconds, such as 0.020.",
            )

    @property
    def queue_bytes(self) -> int:
        """Bytes that wait before the link drops."""
        if self.queue is not None:
            return self.queue
        return max(SMALLEST_QUEUE, int(self.rate / 8 * self.rtt))


@dataclass(frozen=True, slots=True)
class End:
    """One end of a path: the device in a host, its addresses (without prefix length) and its MAC."""

    device: str
    address4: str
    address6: str
    mac: str

    def address(self, family: int) -> str:
        """The end's address in IPv4 (4) or IPv6 (6)."""
        return self.address6 if family == 6 else self.address4


@dataclass(frozen=True, slots=True)
class LabPath:
    """A path in its place: number (from 1), behaviour, and its ends at host a and host b."""

    number: int
    path: Path
    a: End
    b: End

    @property
    def name(self) -> str:
        """The path's name, which is also its device's name in both hosts."""
        return self.a.device

    @property
    def device_a(self) -> str:
        """The device at host a."""
        return self.a.device

    @property
    def device_b(self) -> str:
        """The device at host b."""
        return self.b.device

    @property
    def rate(self) -> float:
        """bit/s of whole frames."""
        return self.path.rate

    @property
    def rtt(self) -> float:
        """Seconds there and back, on an idle link."""
        return self.path.rtt


def place(number: int, path: Path) -> LabPath:
    """Give path ``number`` (from 1) its names and addresses: 10.0.N.1 and .2, fd00:0:0:N::1 and ::2."""
    return LabPath(number, path, _end(number, 1), _end(number, 2))


def place_all(paths: list[Path] | tuple[Path, ...]) -> tuple[LabPath, ...]:
    """Number the paths from 1 and place each."""
    if not 1 <= len(paths) <= MAX_PATHS:
        raise EmptcpError(
            f"a lab has from 1 to {MAX_PATHS} paths, not {len(paths)}",
            fix="MPTCP itself uses at most 8 subflows besides the first.",
        )
    return tuple(place(number, path) for number, path in enumerate(paths, start=1))


def _end(number: int, host: int) -> End:
    return End(
        device=f"path{number}",
        address4=f"10.0.{number}.{host}",
        address6=f"fd00:0:0:{number}::{host}",
        mac=f"02:00:00:00:{number:02x}:{host:02x}",
    )
