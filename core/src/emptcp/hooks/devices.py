# SPDX-License-Identifier: Apache-2.0
"""The devices of a network namespace, and which of them a policy's patterns mean."""

from __future__ import annotations

import ctypes
import fcntl
import fnmatch
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from emptcp.errors import EmptcpError, did_you_mean
from emptcp.hooks import namespaces, rtnetlink
from emptcp.hooks.namespaces import Namespace

# struct ifinfomsg: family, padding, ARPHRD type, index, flags, change
_LINK = struct.Struct("=BxHiII")
# struct ifaddrmsg: family, prefix length, flags, scope, ifindex
_ADDRESS = struct.Struct("=B3xI")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFF_UP, _IFF_LOOPBACK = 1 << 0, 1 << 3
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_XDP = 1, 3, 4, 18, 43
_IFLA_INFO_KIND = 1
_SIOCETHTOOL, _ETHTOOL_GDRVINFO = 0x8946, 0x3

# What a packet begins with, by the device's ARPHRD type (include/uapi/linux/if_arp.h): ETHER, LOOPBACK; and
# PPP, RAWIP, TUNNEL, TUNNEL6, SIT, IPGRE, IP6GRE, NONE, whose programs see the IP header first.
_ETHERNET = frozenset({1, 772})
_NO_HEADER = frozenset({512, 519, 768, 769, 776, 778, 823, 65534})


Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Device:
    """A network device.

    ``link`` is what its packets begin with for a program: ``ethernet`` (14 bytes), ``none`` (the IP
    header), or ``other``, which policies can't use. ``driver`` is the kind of a virtual device (``veth``,
    ``tun``) or the driver of a real one, ``virtual`` tells them apart. ``mtu`` is bytes of IP packet,
    ``address`` the hardware address as text, ``xdp`` the ids of the XDP programs on it by mode (``native``,
    ``generic``, ``hardware``).
    """

    name: str
    ifindex: int
    link: str
    driver: str
    mtu: int
    address: str
    virtual: bool = False
    up: bool = True
    loopback: bool = False
    xdp: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return self.name


def list_devices(namespace: Namespace) -> list[Device]:
    """Return the devices of a namespace, by ifindex.

    :raises EmptcpError: the namespace can't be entered.
    """
    return sorted(namespaces.call(namespace, _list), key=lambda device: device.ifindex)


def addresses(namespace: Namespace) -> dict[Address, int]:
    """Return the addresses of a namespace with the ifindex of the device that has each.

    :raises EmptcpError: the namespace can't be entered.
    """
    return dict(namespaces.call(namespace, _addresses))


def _addresses() -> list[tuple[Address, int]]:
    with rtnetlink.RouteSocket() as routes:
        found = routes.dump(rtnetlink.RTM_GETADDR, _ADDRESS.pack(0, 0))
    return [one for body in found for one in _address(body)]


def _address(body: bytes) -> Iterator[tuple[Address, int]]:
    _family, ifindex = _ADDRESS.unpack_from(body)
    told = rtnetlink.attributes(body[_ADDRESS.size :])
    raw = told.get(_IFA_LOCAL) or told.get(_IFA_ADDRESS)
    if raw is not None:
        yield ip_address(raw), ifindex


def find(namespace: Namespace, name: str) -> Device:
    """Return a device by name.

    :raises EmptcpError: there is none; names the nearest.
    """
    here = list_devices(namespace)
    found = [device for device in here if device.name == name]
    if not found:
        raise _unknown(namespace, name, here)
    return found[0]


def match(namespace: Namespace, patterns: Iterable[str]) -> list[Device]:
    """Return the devices that names and globs mean, by ifindex, each once.

    A glob may match nothing, and never means the loopback device.

    :raises EmptcpError: a name without wildcards is no device of the namespace.
    """
    here = list_devices(namespace)
    chosen: set[str] = set()
    for pattern in patterns:
        names = {device.name for device in here if _means(pattern, device)}
        if not names and not is_glob(pattern):
            raise _unknown(namespace, pattern, here)
        chosen |= names
    return [device for device in here if device.name in chosen]


def is_glob(pattern: str) -> bool:
    """Return whether a pattern has wildcards."""
    return any(character in pattern for character in "*?[")


def _means(pattern: str, device: Device) -> bool:
    if not is_glob(pattern):
        return device.name == pattern
    return not device.loopback and fnmatch.fnmatchcase(device.name, pattern)


def _unknown(namespace: Namespace, name: str, here: list[Device]) -> EmptcpError:
    names = [device.name for device in here]
    near = did_you_mean(name, names)
    known = f"There are: {', '.join(names)}."
    return EmptcpError(f"there is no device '{name}' in {_place(namespace)}", fix=near.capitalize() or known)


def _place(namespace: Namespace) -> str:
    return f"the network namespace '{namespace.name}'" if namespace.name else "this network namespace"


def _list() -> list[Device]:
    with rtnetlink.RouteSocket() as route, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        bodies = route.dump(rtnetlink.RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
        return [_device(body, control) for body in bodies]


def _device(body: bytes, control: socket.socket) -> Device:
    _family, kind, ifindex, flags, _change = _LINK.unpack_from(body)
    found = rtnetlink.attributes(body[_LINK.size :])
    name = rtnetlink.text(found.get(_IFLA_IFNAME, b""))
    info = rtnetlink.attributes(found.get(_IFLA_LINKINFO, b""))
    virtual = rtnetlink.text(info.get(_IFLA_INFO_KIND, b""))
    return Device(
        name=name,
        ifindex=ifindex,
        link=_begins_with(kind),
        driver=virtual or _driver(control, name),
        mtu=rtnetlink.number(found.get(_IFLA_MTU)),
        address=found.get(_IFLA_ADDRESS, b"").hex(":"),
        virtual=bool(virtual),
        up=bool(flags & _IFF_UP),
        loopback=bool(flags & _IFF_LOOPBACK),
        xdp=_xdp(found.get(_IFLA_XDP, b"")),
    )


def _begins_with(kind: int) -> str:
    if kind in _ETHERNET:
        return "ethernet"
    return "none" if kind in _NO_HEADER else "other"


def _driver(control: socket.socket, name: str) -> str:
    """Return a real device's driver (``struct ethtool_drvinfo``); empty if it tells none."""
    answer = bytearray(struct.pack("=I", _ETHTOOL_GDRVINFO) + bytes(192))
    buffer = (ctypes.c_char * len(answer)).from_buffer(answer)
    request = struct.pack("16sP", name.encode(), ctypes.addressof(buffer)).ljust(40, b"\0")
    try:
        fcntl.ioctl(control, _SIOCETHTOOL, request)
    except OSError:
        return ""
    return rtnetlink.text(bytes(answer[4:36]))


def _xdp(data: bytes) -> tuple[tuple[str, int], ...]:
    """Return the XDP programs of a device (IFLA_XDP_DRV_PROG_ID, _SKB_, _HW_)."""
    found = rtnetlink.attributes(data)
    modes = {"native": 5, "generic": 6, "hardware": 7}
    return tuple((mode, rtnetlink.number(found[kind])) for mode, kind in modes.items() if kind in found)
