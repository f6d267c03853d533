# SPDX-License-Identifier: Apache-2.0
"""The subflow iterator's records as plain numbers: 2,000 of them are unpacked in a few milliseconds.

:class:`emptcp.mptcp.sockets.Subflow` is the same with addresses as objects and keys, for who looks at a few.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from emptcp.mptcp.sockets import JOINING, OPEN_STATES, RECORD

IDENTITY = 38
"""Bytes at the head of a record that tell one subflow from another: addresses, family, ports."""

_AF_INET = 2
_MAPPED = bytes(10) + b"\xff\xff"


class Measured(NamedTuple):
    """One record, in the kernel's units: ``srtt`` in microseconds times 8, ``rtt_deviation`` times 4."""

    local: bytes
    remote: bytes
    family: int
    local_port: int
    remote_port: int
    state: int
    flags: int
    token: int
    local_id: int
    remote_id: int
    snd_una: int
    snd_nxt: int
    send_window: int
    write_seq: int
    rcv_nxt: int
    rcv_wup: int
    receive_window: int
    srtt: int
    bound_device: int
    device: int
    send_scale: int
    receive_scale: int
    remote_key: bytes
    local_key: bytes
    pacing_rate: int
    bytes_sent: int
    bytes_acked: int
    bytes_received: int
    queued: int
    outstanding: int
    min_rtt: int
    rtt_deviation: int
    cwnd: int
    mss: int
    retransmissions: int
    rate_delivered: int
    rate_interval: int

    @property
    def open(self) -> bool:
        """Whether both ends look at MPTCP options that arrive on it."""
        return self.state in OPEN_STATES and not self.flags & JOINING

    @property
    def key(self) -> bytes:
        """The subflow as the key ``subflow`` of sets and maps has it: the lower end first."""
        ends = (
            _mapped(self.local, self.family) + self.local_port.to_bytes(2, "big"),
            _mapped(self.remote, self.family) + self.remote_port.to_bytes(2, "big"),
        )
        return b"".join(sorted(ends))


def _mapped(address: bytes, family: int) -> bytes:
    return _MAPPED + address[:4] if family == _AF_INET else address


def measured(records: bytes) -> Iterator[tuple[bytes, Measured]]:
    """Yield each record's identity and what it says."""
    for record in each(records):
        yield record[:IDENTITY], of_record(record)


def each(records: bytes) -> Iterator[bytes]:
    """Yield the records; one that is as before need not be looked into."""
    return (records[start : start + RECORD.size] for start in range(0, len(records), RECORD.size))


def of_record(record: bytes) -> Measured:
    """Return what one record says."""
    return Measured._make(RECORD.unpack(record))
