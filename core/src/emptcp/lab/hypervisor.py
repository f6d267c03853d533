# SPDX-License-Identifier: Apache-2.0
"""A guest behind a hypervisor that has two links to a peer, as a context manager::

    with behind_hypervisor() as lab:
        traffic.start(lab.guest, lab.peer, lab.addresses[0])
        print(lab.hypervisor.sent())

::

             tap0 +------------+ link1 ------- peer1 +------+
    guest --------| hypervisor |                     | peer |
                  +------------+ link2 ------- peer2 +------+

The guest has one device, and the peer two addresses that are reached by either link, so that a connection
gets two subflows which both leave by the first link, unless something on the hypervisor sends one elsewhere.
(The kernel's look-up of IPv6 routes by device takes only those of the best metric, so these are equal there,
and a hash chooses.) What the peer answers comes back by the first link. Packets stay merged as long as the
kernel leaves them so.

``bridged``: guest and peer are in one network, with a bridge of the guest's device and the first link on the
hypervisor, and one of both links on the peer. Else the hypervisor routes.

``links`` are the links' rates and queues, up to eight; without them there are two, as fast as the machine.
Their queues are on the hypervisor, in what goes out.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from emptcp.lab import cleanup, namespace, settings, state
from emptcp.lab.host import Host
from emptcp.lab.path import Path
from emptcp.lab.process import Identity
from emptcp.lab.topology import allow_subflows

LINKS = ("link1", "link2")
BURST = 16 << 10
"""Bytes that a link takes at once."""
_PAIRS = [device for number in range(1, 9) for device in (f"link{number}", f"peer{number}")]
MACS = {
    device: f"02:00:00:00:0a:{number:02x}"
    for number, device in enumerate(("eth0", "tap0", *_PAIRS, "bridge"))
}


@dataclass(frozen=True, slots=True)
class Behind:
    """The lab as it stands. ``addresses`` are the peer's; on the hypervisor the guest is behind ``tap0``.

    ``a``, ``b``, ``address`` and ``path_names`` are for :class:`emptcp.lab.load.Load`: guest and peer.
    """

    guest: Host
    hypervisor: Host
    peer: Host
    addresses: tuple[str, str]
    name: str = ""
    links: tuple[str, ...] = LINKS

    @property
    def a(self) -> Host:
        """Who sends."""
        return self.guest

    @property
    def b(self) -> Host:
        """Who receives."""
        return self.peer

    @property
    def applied_at(self) -> Host:
        """The host where policies are in force."""
        return self.hypervisor

    @property
    def address(self) -> str:
        """The address to connect to."""
        return self.addresses[0]

    @property
    def path_names(self) -> Mapping[str, str]:
        """None: the guest has one address for all."""
        return {}


@contextlib.contextmanager
def behind_hypervisor(
    *,
    family: int = 4,
    bridged: bool = False,
    mtu: int = 1500,
    name: str = "lab",
    links: Sequence[Path] = (),
) -> Iterator[Behind]:
    """Make the lab for as long as the block lasts; ``mtu`` is that of every device."""
    settings.need_mptcp()
    cleanup.sweep()
    token = secrets.token_hex(2)
    netns = [f"emt-{name}-{token}-{end}" for end in ("guest", "hypervisor", "peer")]
    ours = Identity.of(os.getpid())
    record = state.Record(name=f"{state.check_name(name)}-{token}", owner=ours, namespaces=tuple(netns))
    state.create(record)
    guest, hypervisor, peer = (Host(end.rpartition("-")[2], end) for end in netns)
    try:
        for host in (guest, hypervisor, peer):
            namespace.add(host.netns)
            settings.make_steady(host)
            _let_pass(host)
        made = Behind(
            guest,
            hypervisor,
            peer,
            _addresses(family, bridged),
            record.name,
            tuple(f"link{number}" for number in range(1, len(links) + 1)) or LINKS,
        )
        _join(made, family, bridged, mtu)
        for device, link in zip(made.links, links, strict=False):
            namespace.tc(tbf(device, link), netns=hypervisor.netns)
        yield made
    finally:
        for host in (guest, hypervisor, peer):
            host.end_children()
        cleanup.remove(record)


def _let_pass(host: Host) -> None:
    """Forward, and take packets whose answers leave by another device."""
    for which in ("all", "default"):
        host.set(f"net.ipv4.conf.{which}.rp_filter", 0)
        for version in ("ipv4", "ipv6"):
            host.set(f"net.{version}.conf.{which}.forwarding", 1)


def tbf(device: str, link: Path) -> list[str]:
    """The tc arguments for what leaves by a link."""
    shape = ("rate", f"{link.rate:.0f}bit", "burst", f"{BURST}", "limit", f"{link.queue_bytes + BURST}")
    return ["qdisc", "add", "dev", device, "root", "tbf", *shape]


def _join(made: Behind, family: int, bridged: bool, mtu: int) -> None:
    guest, hypervisor, peer = made.guest, made.hypervisor, made.peer
    cables = [(hypervisor, link, peer, link.replace("link", "peer")) for link in made.links]
    for near, device, far, other in ((guest, "eth0", hypervisor, "tap0"), *cables):
        order = ["link", "add", *_named(device, mtu), "netns", near.netns, "type", "veth"]
        namespace.ip([*order, "peer", *_named(other, mtu), "netns", far.netns])
    lines = _bridged(family) if bridged else _routed(family, len(made.links))
    for host, of_host in zip((guest, hypervisor, peer), lines, strict=True):
        up = ["link set lo up", *(f"link set {device} up" for device in host.call(_devices))]
        namespace.ip_batch([*up, *of_host], netns=host.netns)
    allow_subflows(guest, peer)
    device = "bridge" if bridged else "lo"
    endpoint = ["mptcp", "endpoint", "add", made.addresses[1], "dev", device, "signal"]
    namespace.ip(endpoint, netns=peer.netns)


def _named(device: str, mtu: int) -> list[str]:
    return ["name", device, "address", MACS[device], "mtu", str(mtu)]


def _neighbour(address: str, mac: str, device: str) -> str:
    """Be known already: to ask for it would be in the way of the first packets."""
    return f"neigh add {address} lladdr {MACS[mac]} dev {device} nud permanent"


def _devices() -> list[str]:
    import socket

    return [name for _, name in socket.if_nameindex() if name != "lo"]


def _addresses(family: int, bridged: bool) -> tuple[str, str]:
    if family == 6:
        return ("fd01::8", "fd01::9") if bridged else ("fd09::8", "fd09::9")
    return ("10.1.0.8", "10.1.0.9") if bridged else ("10.9.0.8", "10.9.0.9")


def _bridged(family: int) -> tuple[list[str], list[str], list[str]]:
    bits = 24 if family == 4 else 64
    ours, nodad = ("10.1.0.2", "") if family == 4 else ("fd01::2", " nodad")
    addresses = _addresses(family, True)
    return (
        [
            f"addr add {ours}/{bits} dev eth0{nodad}",
            *(_neighbour(one, "bridge", "eth0") for one in addresses),
        ],
        _bridge("tap0", "link1"),
        [
            *_bridge("peer1", "peer2"),
            f"link set bridge address {MACS['bridge']}",
            *(f"addr add {one}/{bits} dev bridge{nodad}" for one in addresses),
            _neighbour(ours, "eth0", "bridge"),
        ],
    )


def _bridge(*ports: str) -> list[str]:
    made = ["link add bridge type bridge", "link set bridge up"]
    return [*made, *(f"link set {port} master bridge" for port in ports)]


def _routed(family: int, count: int) -> tuple[list[str], list[str], list[str]]:
    numbers = range(1, count + 1)
    if family == 6:
        guests, links, bits, nodad = "fd01::", [f"fd02:{number}::" for number in numbers], 64, " nodad"
        served = "fd09::/64"
    else:
        guests, links, bits, nodad = "10.1.0.", [f"10.2.{number}." for number in numbers], 24, ""
        served = "10.9.0.0/24"
    guest = [
        f"addr add {guests}2/{bits} dev eth0{nodad}",
        _neighbour(f"{guests}1", "tap0", "eth0"),
        f"route add default via {guests}1",
    ]
    hypervisor = [f"addr add {guests}1/{bits} dev tap0{nodad}", _neighbour(f"{guests}2", "eth0", "tap0")]
    peer = [f"addr add {one} dev lo{nodad}" for one in _addresses(family, False)]
    for number, link in enumerate(links, 1):
        hypervisor += [
            f"addr add {link}1/{bits} dev link{number}{nodad}",
            _neighbour(f"{link}2", f"peer{number}", f"link{number}"),
            f"route append {served} via {link}2 dev link{number} metric {1 if family == 6 else number}",
        ]
        peer += [
            f"addr add {link}2/{bits} dev peer{number}{nodad}",
            _neighbour(f"{link}1", f"link{number}", f"peer{number}"),
        ]
    return guest, hypervisor, [*peer, f"route add default via {links[0]}1"]
