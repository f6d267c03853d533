# SPDX-License-Identifier: Apache-2.0
"""Packets as they usually pass on a subflow, to ask a policy whether it selects that subflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from emptcp.mptcp.acknowledge import End, segment
from emptcp.packet.build import build, ethernet
from emptcp.packet.layers import EtherType
from emptcp.packet.mptcp import Dss

if TYPE_CHECKING:
    from emptcp.hooks.devices import Device
    from emptcp.mptcp.sockets import Subflow
    from emptcp.plugins.occasions import Endpoint

_DATA = bytes(100)


def sample_frames(subflow: Subflow, device: Device, to: End) -> tuple[bytes, bytes]:
    """Return an ACK and a packet with data, each with a DSS, as a program on ``device`` sees them.

    ``to="us"`` is what comes in by the device, ``to="peer"`` what goes out. They are for trial runs only:
    data sequence numbers and hardware addresses are made up.
    """
    ack = segment(subflow, [Dss(data_ack=1)], to)
    data = segment(subflow, [Dss(data_ack=1, dsn=1, data_length=len(_DATA))], to, _DATA)
    return seen_by(device, ack), seen_by(device, data)


def passing_frames(source: Endpoint, target: Endpoint, device: Device) -> tuple[bytes, bytes]:
    """Return the same for a subflow that only passes this host: from ``source`` to ``target``."""
    ends: dict[str, Any] = {"src": source[0], "sport": source[1], "dst": target[0], "dport": target[1]}
    family: Literal[4, 6] = 4 if source[0].version == 4 else 6
    ack = build(link="none", family=family, options=[Dss(data_ack=1)], **ends)
    mapping = Dss(data_ack=1, dsn=1, data_length=len(_DATA))
    data = build(link="none", family=family, options=[mapping], payload=_DATA, **ends)
    return seen_by(device, ack), seen_by(device, data)


def seen_by(device: Device, packet: bytes) -> bytes:
    """Return ``packet`` (from its IP header on) as a program on ``device`` sees it, addressed by nobody."""
    if device.link != "ethernet":
        return packet
    kind = EtherType.IPV4 if packet[0] >> 4 == 4 else EtherType.IPV6
    return ethernet(bytes(6), bytes(6), kind, packet)
