# SPDX-License-Identifier: Apache-2.0
"""Packets that tell of harm, as they pass in a network namespace, at any hop.

An end complains: by a RST with an MP_TCPRST that says "middlebox interference" (RFC 8684 section 3.6,
reason 6), or by MP_FAIL (section 3.7). A socket filter in the kernel passes on what may be one; all else
costs its few loads. Or data has no mapping any more, or is sent again and again
(:mod:`emptcp.control.mappings`), or has a wrong checksum (:mod:`emptcp.control.checksums`). Who is shown to
do it only by a trial (:mod:`emptcp.chain.spoiling`) gets a packet for that. Of packets with data only as many
are looked at as the socket holds between two looks; the kernel lets go of the others at once.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from emptcp.control.checksums import Checksums, is_right
from emptcp.control.mappings import Mappings, Resent
from emptcp.control.streaks import Ends
from emptcp.hooks import namespaces
from emptcp.hooks.namespaces import Namespace
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import MpFail, MpTcpReset
from emptcp.plugins.occasions import Endpoint

MIDDLEBOX = 6
SPOILT = "wrong TCP checksum"
BARE = "data without DSS"
RESENT = "data that is sent again and again"
RESET = "RST with MP_TCPRST"

LATELY = 3.0
"""Seconds for which packets that came in are kept for a trial."""

KEPT = 8
"""Packets of each device, each of another subflow, that are kept for a trial, and suspicions of one kind."""

_ETH_P_ALL = 0x0003
_SO_ATTACH_FILTER = 26
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_OUTGOING = 263, 8, 4
_PACKET_VNET_HDR, _VNET_HDR_BYTES, _GSO_NONE = 15, 10, 0  # struct virtio_net_hdr: its second byte is the kind
_CHECKSUM_NOT_READY = 1 << 3
_AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata: its first word is the status
_MOST = (1 << 16) + 100  # bytes of a packet with its headers
_AT_ONCE = 1000  # packets for one look

# Classic BPF (linux/filter.h): load a byte, half or word; X is where TCP begins; compare; return.
_LDB, _LDH, _LDB_X, _LD_X, _LDX_IHL, _LDX = 0x30, 0x28, 0x50, 0x40, 0xB1, 0x01
_AND, _RSH, _JEQ, _JSET, _JA, _RET = 0x54, 0x74, 0x15, 0x45, 0x05, 0x06
_LD_LEN, _JGT = 0x80, 0x25
_INSTRUCTION = struct.Struct("=HBBI")
_ADDRESS = struct.Struct("=HHiHBB8s")  # struct sockaddr_ll

_NETWORK = 0xFFF00000  # SKF_NET_OFF
_LONGEST_HEADERS = 14 + 40 + 60  # bytes of Ethernet, IPv6 and TCP; an IPv4 header with options is rare

# Where an option of 12 bytes may stand in a TCP header, in words: senders align MP_FAIL.
_PLACES = range(20, 52, 4)
_MP_FAIL, _MP_FAIL_MASK = 0x1E0C6000, 0xFFFFF000  # kind 30, 12 bytes, subtype 6


@dataclass(frozen=True)
class _Passing:
    """A packet from its IP header on, by which device it passed, and whether its checksum is filled in.

    ``single``: it is not several that were merged, nor one that is yet to be cut (GSO).
    """

    device: str
    data: bytes
    leaves: bool
    filled: bool
    single: bool = False


@dataclass(frozen=True)
class Complaint:
    """What was heard: by which device (empty: between several), what it was, and who sent it to whom.

    With a ``packet``, from its IP header on, it is a suspicion: of what came in by the device (or went out by
    it: ``leaves``), or without a device of what either end sends. It counts for a policy that is shown by a
    trial to do that.
    """

    device: str
    what: str
    ends: tuple[Endpoint, Endpoint]
    packet: bytes = b""
    leaves: bool = False


class Alarms:
    """Hears what passes in a namespace, on all its devices. Close it.

    Raises :class:`EmptcpError` where the namespace is gone, :class:`OSError` where packets can't be heard.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._complaints = namespaces.call(namespace, lambda: _open(_complaints()))
        try:
            self._data = namespaces.call(namespace, lambda: _open(_data(), whole=True))
        except BaseException:
            self._complaints.close()
            raise
        self._mappings = Mappings()
        self._resent = Resent()
        self._checksums = Checksums()
        self._came: dict[str, OrderedDict[Ends, tuple[float, bytes]]] = {}

    def read(self) -> list[Complaint]:
        """Return what was heard since the last time."""
        heard = [complaint(one.device, one.data) for one in _received(self._complaints)]
        return list(_few([*filter(None, heard), *self._spoilt()]))

    def _spoilt(self) -> Iterator[Complaint]:
        now = time.monotonic()
        for one in _received(self._data, whole=True):
            packet = decode(one.data, "none")
            if packet.tcp is None or packet.ip is None or not packet.payload:
                continue
            ends = (packet.ip.src, packet.tcp.sport), (packet.ip.dst, packet.tcp.dport)
            if self._mappings.lost(now, one.device, ends, packet):
                yield Complaint("", BARE, ends)
            if self._mappings.suspicious(now, one.device, one.leaves, ends, packet):
                yield Complaint(one.device, BARE, ends, one.data, one.leaves)
            if self._resent.suspicious(now, (one.device, one.leaves), ends, packet):
                yield Complaint("", RESENT, ends, one.data)
            right = is_right(packet, one.filled, one.single)
            if self._checksums.spoilt(now, one.device, ends, right, one.leaves):
                yield Complaint("", SPOILT, ends)
            if not one.leaves:
                self._keep(now, one, ends)
                if self._checksums.suspicious(one.device, ends, right):
                    yield Complaint(one.device, SPOILT, ends, one.data)

    def _keep(self, now: float, one: _Passing, ends: Ends) -> None:
        kept = self._came.setdefault(one.device, OrderedDict())
        kept[ends] = now, one.data
        kept.move_to_end(ends)
        if len(kept) > KEPT:
            kept.popitem(last=False)

    def suspicions(self) -> list[Complaint]:
        """Return that packets like those that came in lately are spoilt, which something else told of."""
        since = time.monotonic() - LATELY
        return [
            Complaint(device, SPOILT, ends, packet)
            for device, kept in self._came.items()
            for ends, (when, packet) in kept.items()
            if when >= since
        ]

    def close(self) -> None:
        """Hear no more."""
        self._complaints.close()
        self._data.close()


def _few(heard: Sequence[Complaint]) -> Iterator[Complaint]:
    """Yield complaints, and of suspicions only so many of a kind and a device: each is tried."""
    suspicions = Counter[tuple[str, str]]()
    for one in heard:
        if one.packet:
            suspicions[one.what, one.device] += 1
        if not one.packet or suspicions[one.what, one.device] <= KEPT:
            yield one


def _received(source: socket.socket, whole: bool = False) -> Iterator[_Passing]:
    """Yield what waits in a socket; in a ``whole`` one packets begin with a struct virtio_net_hdr."""
    for _ in range(_AT_ONCE):
        try:
            data, extra, _flags, address = source.recvmsg(_MOST, socket.CMSG_SPACE(_AUXDATA.size))
        except BlockingIOError:
            return
        except OSError:  # merged in a way that a virtio_net_hdr has no word for: the kernel let go of it
            continue
        status, _, _, _, network, *_ = next(_AUXDATA.unpack_from(value) for _, _, value in extra)
        begin = _VNET_HDR_BYTES + network if whole else 0
        yield _Passing(
            device=str(address[0]),
            data=data[begin:],
            leaves=address[2] == _PACKET_OUTGOING,
            filled=not status & _CHECKSUM_NOT_READY,
            single=whole and data[1] == _GSO_NONE,
        )


def complaint(device: str, packet: bytes) -> Complaint | None:
    """Return what a packet that begins with its IP header complains of; ``None``: of nothing."""
    found = decode(packet, "none")
    if found.tcp is None or found.ip is None:
        return None
    ends = (found.ip.src, found.tcp.sport), (found.ip.dst, found.tcp.dport)
    for placed in found.tcp.mptcp:
        if what := _alarm(placed.option):
            return Complaint(device, what, ends)
        if isinstance(placed.option, MpTcpReset):
            return Complaint("", RESET, ends, packet)
    return None


def _alarm(option: object) -> str:
    if isinstance(option, MpFail):
        return "MP_FAIL"
    if isinstance(option, MpTcpReset) and option.reason == MIDDLEBOX:
        return "RST with MP_TCPRST (middlebox)"
    return ""


def _open(code: Sequence[tuple[int, int, int, int]], whole: bool = False) -> socket.socket:
    """Return a socket that hears what a filter passes; ``whole``: with what it says of merged ones."""
    kind = socket.SOCK_RAW if whole else socket.SOCK_DGRAM
    made = socket.socket(socket.AF_PACKET, kind | socket.SOCK_NONBLOCK, 0)
    try:
        packed = b"".join(_INSTRUCTION.pack(*one) for one in code)
        buffer = ctypes.create_string_buffer(packed)
        program = struct.pack("HP", len(code), ctypes.addressof(buffer))
        made.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        made.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        if whole:
            made.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        _bind_everywhere(made)  # only now: what came before the filter would all be queued
    except OSError:
        made.close()
        raise
    return made


def _bind_everywhere(made: socket.socket) -> None:
    """Bind to all devices at once, for which Python's own ``bind`` has no word."""
    address = _ADDRESS.pack(socket.AF_PACKET, socket.htons(_ETH_P_ALL), 0, 0, 0, 0, bytes(8))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(made.fileno(), address, len(address)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _data() -> list[tuple[int, int, int, int]]:
    """Pass what is TCP, for IPv6 without extension headers, and longer than its headers can be.

    Packets begin with a link header here, so bytes are counted from the network header.
    """
    return [
        (_LDB, 0, 0, _NETWORK),
        (_RSH, 0, 0, 4),
        (_JEQ, 0, 2, 4),
        (_LDB, 0, 0, _NETWORK + 9),
        (_JA, 0, 0, 2),
        (_JEQ, 0, 4, 6),
        (_LDB, 0, 0, _NETWORK + 6),
        (_JEQ, 0, 2, socket.IPPROTO_TCP),
        (_LD_LEN, 0, 0, 0),
        (_JGT, 1, 0, _LONGEST_HEADERS),
        (_RET, 0, 0, 0),
        (_RET, 0, 0, _MOST),
    ]


def _complaints() -> list[tuple[int, int, int, int]]:
    """Pass what is TCP with RST, or has the first bytes of an MP_FAIL; IPv6 without extension headers."""
    find = [one for at in _PLACES for one in ((_LD_X, 0, 0, at), (_AND, 0, 0, _MP_FAIL_MASK), _MP_FAIL)]
    drop = 15 + len(find)
    code: list[tuple[int, int, int, int]] = [
        (_LDB, 0, 0, 0),
        (_RSH, 0, 0, 4),
        (_JEQ, 0, 6, 4),
        (_LDB, 0, 0, 9),
        (_JEQ, 0, drop - 5, socket.IPPROTO_TCP),
        (_LDH, 0, 0, 6),
        (_JSET, drop - 7, 0, 0x1FFF),
        (_LDX_IHL, 0, 0, 0),
        (_JA, 0, 0, 4),
        (_JEQ, 0, drop - 10, 6),
        (_LDB, 0, 0, 6),
        (_JEQ, 0, drop - 12, socket.IPPROTO_TCP),
        (_LDX, 0, 0, 40),
        (_LDB_X, 0, 0, 13),
        (_JSET, drop + 1 - 15, 0, 0x04),
    ]
    for one in find:
        code.append(one if isinstance(one, tuple) else (_JEQ, drop - len(code), 0, one))
    return [*code, (_RET, 0, 0, 0), (_RET, 0, 0, _MOST)]
