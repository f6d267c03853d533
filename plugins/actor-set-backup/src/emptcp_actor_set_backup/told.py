# SPDX-License-Identifier: Apache-2.0
"""What the fragment and the hooks know together of a subflow: the plugin's slot in the flow table."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Literal

from emptcp.api import Endpoint, FlowStates, Subflow

End = Literal["us", "peer"]
"""Whose sending an option steers: its receiver's."""

# struct set_backup_state of set_backup.bpf.c
_SLOT = struct.Struct("=Q2Q2I2B2B4x")

UNKNOWN = 0


def value(backup: bool) -> int:
    """Return how a slot says a backup bit; 0 there is :data:`UNKNOWN`."""
    return 2 if backup else 1


@dataclass(frozen=True)
class Told:
    """One slot. Pairs are by the end that sends the option, in the order of the flow's key.

    ``told`` is the bit that emptcp said last in that end's name, ``own`` the one that the end itself asked
    for, before the policy came or since. Until ``held_until`` (CLOCK_MONOTONIC, nanoseconds) passing packets
    leave the telling to the hooks; ``following`` is the sequence number behind those that passed meanwhile.
    """

    told_at: int = 0
    held_until: tuple[int, int] = (0, 0)
    following: tuple[int, int] = (0, 0)
    told: tuple[int, int] = (UNKNOWN, UNKNOWN)
    own: tuple[int, int] = (UNKNOWN, UNKNOWN)

    def said(self, end: int) -> int:
        """Return the bit that is in force as far as the packets tell."""
        return self.told[end] or self.own[end]

    def put(self, end: int, *, told: int | None = None, own: int | None = None) -> Told:
        """Return it with other values for one end."""
        return replace(self, told=_at(self.told, end, told), own=_at(self.own, end, own))

    def hold(self, end: int, until: int) -> Told:
        """Return it with passing packets of one end kept from telling; 0 lets them at once."""
        return replace(
            self, held_until=_at(self.held_until, end, until), following=_at(self.following, end, 0)
        )

    @classmethod
    def decode(cls, slot: bytes) -> Told:
        """Read a slot's bytes."""
        told_at, *pairs = _SLOT.unpack_from(slot)
        return cls(told_at, *zip(pairs[::2], pairs[1::2], strict=True))

    def encode(self) -> bytes:
        """Return the slot's bytes."""
        return _SLOT.pack(self.told_at, *self.held_until, *self.following, *self.told, *self.own)


def _at(pair: tuple[int, int], end: int, number: int | None) -> tuple[int, int]:
    if number is None:
        return pair
    return (number, pair[1]) if end == 0 else (pair[0], number)


def read(flows: FlowStates, subflow: Subflow) -> Told:
    """Return what is known of a subflow; nothing, when it has no entry."""
    slot = flows.get(*_endpoints(subflow))
    return Told.decode(slot) if slot is not None else Told()


def write(flows: FlowStates, subflow: Subflow, told: Told) -> None:
    """Write what is known of a subflow, making its entry where there is none."""
    flows.put(*_endpoints(subflow), told.encode())


def sender(subflow: Subflow, steers: End) -> int:
    """Return the end, by the flow's key, whose packets carry the option that steers ``steers``."""
    local, remote = map(_on_the_wire, _endpoints(subflow))
    theirs = int(remote > local)
    return theirs if steers == "us" else 1 - theirs


def _endpoints(subflow: Subflow) -> tuple[Endpoint, Endpoint]:
    return (subflow.local, subflow.local_port), (subflow.remote, subflow.remote_port)


def _on_the_wire(end: Endpoint) -> tuple[bytes, int]:
    """Return what the flow's key is ordered by."""
    address, port = end
    return address.packed, port
