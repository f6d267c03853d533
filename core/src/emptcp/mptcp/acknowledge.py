# SPDX-License-Identifier: Apache-2.0
"""Build a duplicate ACK of a subflow: a packet without data that carries options to one of its two ends.

RFC 8684 §3.3 lets any packet of the subflow carry MPTCP options, and Linux looks at them once TCP took the
packet (``tcp_validate_incoming``, ``tcp_ack``, then ``mptcp_incoming_options``). So the sequence number must
be current, the acknowledgement must not be of unsent data, and the window must be one that may be believed.
No timestamp: a stale one fails PAWS on a busy subflow. No DSS: it isn't needed, and a wrong one costs the
connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from emptcp.packet.build import build

if TYPE_CHECKING:
    from emptcp.mptcp.sockets import Subflow
    from emptcp.packet.tcp import Option

End = Literal["us", "peer"]

_MODULUS = 1 << 32


def duplicate_ack(subflow: Subflow, options: Sequence[Option | bytes], to: End = "us") -> bytes:
    """Return an IP packet (no link header) that repeats the last ACK of ``subflow`` with ``options``.

    ``to="us"`` is what the peer would send to this host, for :func:`emptcp.mptcp.inject.deliver`;
    ``to="peer"`` what this host would send, for :func:`emptcp.mptcp.inject.send`. Raises EmptcpError when
    the options take over 40 bytes.
    """
    return segment(subflow, options, to)


def segment(subflow: Subflow, options: Sequence[Option | bytes], to: End, payload: bytes = b"") -> bytes:
    """Return an IP packet as :func:`duplicate_ack`; with ``payload`` it is for trial runs only."""
    return (_from_peer if to == "us" else _to_peer)(subflow, options, payload)


def _from_peer(subflow: Subflow, options: Sequence[Option | bytes], payload: bytes) -> bytes:
    return build(
        link="none",
        family=subflow.family,
        src=subflow.remote,
        dst=subflow.local,
        sport=subflow.remote_port,
        dport=subflow.local_port,
        seq=subflow.rcv_nxt,
        ack=subflow.snd_una,
        window=_window_field(subflow.send_window, subflow.send_scale),
        options=options,
        payload=payload,
    )


def _to_peer(subflow: Subflow, options: Sequence[Option | bytes], payload: bytes) -> bytes:
    return build(
        link="none",
        family=subflow.family,
        src=subflow.local,
        dst=subflow.remote,
        sport=subflow.local_port,
        dport=subflow.remote_port,
        seq=next_sequence(subflow),
        ack=subflow.rcv_nxt,
        window=_window_field(_offered(subflow), subflow.receive_scale),
        options=options,
        payload=payload,
    )


def next_sequence(subflow: Subflow) -> int:
    """Return the sequence number for a packet to the peer: as far ahead as the peer is sure to follow.

    On a busy subflow ``snd_nxt`` is old when the packet leaves, and the peer drops what lies before the data
    it has. Ahead of it is taken (RFC 9293 §3.10.7.4: any sequence number in the window), but also remembered
    as the place of the last window update; so never beyond what the socket already holds to send, nor beyond
    the peer's window.
    """
    held = _distance(subflow.snd_nxt, subflow.write_seq)
    room = _distance(subflow.snd_nxt, subflow.snd_una + subflow.send_window)
    return (subflow.snd_nxt + max(0, min(held, room))) % _MODULUS


def _offered(subflow: Subflow) -> int:
    """Bytes of the window that this host has offered and that are not used up (``tcp_receive_window``)."""
    return max(0, _distance(subflow.rcv_nxt, subflow.acknowledged + subflow.receive_window))


def _window_field(window: int, scale: int) -> int:
    """Return the 16-bit field; 0 only for a closed window, for 0 is believed even from a duplicate."""
    return max(1, min(0xFFFF, window >> scale)) if window else 0


def _distance(start: int, end: int) -> int:
    """Return how far ``end`` lies behind ``start``, modulo 2**32, negative when before it."""
    return (end - start + _MODULUS // 2) % _MODULUS - _MODULUS // 2
