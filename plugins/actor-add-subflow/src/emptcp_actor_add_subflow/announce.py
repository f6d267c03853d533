# SPDX-License-Identifier: Apache-2.0
"""Announce an address of this host on its connections, signed with their keys (RFC 8684, section 3.4.1)."""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from emptcp.api import (
    Change,
    Device,
    Injector,
    StageEvent,
    Subflow,
    SubflowReader,
    keys,
    namespaces,
    open_plugin_map,
    options,
    selected_subflows,
    tell,
)
from emptcp_actor_blk_subflow.blocked import key_of
from emptcp_actor_blk_subflow.subflow import device_of, is_between

PLUGIN, ANNOUNCED = "add_subflow", "announced"
MOST = 65536
"""Connections that `emptcp run` remembers to have told."""

# struct add_subflow of add_subflow.bpf.c
_PARAMETERS = struct.Struct("=16sHB5x")
_told: OrderedDict[tuple[int, int, int], None] = OrderedDict()


@dataclass(frozen=True)
class Announcement:
    """What the peers are to know."""

    address: IPv4Address | IPv6Address
    id: int
    port: int | None

    @classmethod
    def of_event(cls, data: bytes) -> Announcement:
        """Return what the parameters say that an event of the fragment carries."""
        packed, port, number = _PARAMETERS.unpack_from(data)
        address = IPv6Address(packed)
        return cls(address.ipv4_mapped or address, number, port or None)

    def option(self, subflow: Subflow) -> options.AddAddress:
        """Return the option for a subflow's connection."""
        ours, theirs = subflow.keys
        hmac = keys.address_hmac(ours, theirs, self.id, self.address, self.port)
        return options.AddAddress(self.id, self.address, port=self.port, hmac=hmac)


def announce(change: Change) -> None:
    """Tell the peer of each connection of which the policy selects a subflow, once, and on that subflow.

    A connection whose keys are not known is left out: the peer takes no announcement without a right HMAC.
    """
    what = Announcement(*(change.value(name) for name in ("announce", "id", "port")))
    told: set[int] = set()
    with SubflowReader() as reader, Injector(change.namespace) as injector:
        for subflow, device in selected_subflows(change, "peer", reader):
            if not all(subflow.keys):
                continue
            _mark(subflow, change.namespace.cookie, what.id)
            if subflow.token not in told:
                told.add(subflow.token)
                _tell(what, subflow, device, change.namespace, reader, injector)


def announce_on(event: StageEvent) -> None:
    """Tell the peer of a connection that the fragment saw for the first time."""
    what, namespace = Announcement.of_event(event.data), namespaces.by_cookie(event.netns)
    with SubflowReader() as reader, Injector(namespace) as injector:
        for subflow in reader.read(namespace):
            device = device_of(namespace, subflow) if is_between(subflow, event.endpoints) else None
            if device is not None and all(subflow.keys) and _is_new(event.netns, subflow.token, what.id):
                _tell(what, subflow, device, namespace, reader, injector)


def _tell(
    what: Announcement,
    subflow: Subflow,
    device: Device,
    namespace: namespaces.Namespace,
    reader: SubflowReader,
    injector: Injector,
) -> None:
    said = [what.option(subflow)]
    tell(subflow, device, said, "peer", namespace=namespace, reader=reader, injector=injector)


def _mark(subflow: Subflow, netns: int, number: int) -> None:
    """Let the fragment know that this subflow's connection is told."""
    table = open_plugin_map(PLUGIN, ANNOUNCED)
    if table is not None:
        with table:
            table.update(key_of(subflow, "us", netns), number.to_bytes(4, "little"))


def _is_new(*connection: int) -> bool:
    netns, token, number = connection
    new = (netns, token, number) not in _told
    _told[netns, token, number] = None
    if len(_told) > MOST:
        _told.popitem(last=False)
    return new
