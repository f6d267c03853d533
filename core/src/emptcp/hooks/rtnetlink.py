# SPDX-License-Identifier: Apache-2.0
"""The few route netlink requests that hooks need, with the kernel's own sentence when it refuses one.

Written out instead of taken from pyroute2, which costs 0.2 s to import and gives neither a filter's program
id nor the sentence. Sockets belong to the network namespace of the thread that makes them.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Self

from emptcp.pybpf.errors import meaning

RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_GETADDR = 22
RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
NLA_F_NESTED = 1 << 15

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_NLMSGERR_ATTR_MSG = 1
_HEADER = struct.Struct("=IHHII")
_MESSAGES = 100_000


class NetlinkRefusal(Exception):
    """The kernel refused a request: the errno (positive) and the kernel's sentence, which may be empty."""

    def __init__(self, code: int, sentence: str = "") -> None:
        super().__init__(sentence or meaning(code))
        self.errno = code
        self.sentence = sentence

    @property
    def reason(self) -> str:
        """The kernel's sentence, or the errno in words."""
        return self.sentence or meaning(self.errno)


class RouteSocket:
    """A route netlink socket in the calling thread's network namespace. A context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.settimeout(10)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Ask for a change and wait for the kernel's answer.

        :raises NetlinkRefusal: it refuses.
        """
        for _kind, _body in self._exchange(kind, body, flags | NLM_F_ACK):
            pass

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Return the bodies of all objects of a kind.

        :raises NetlinkRefusal: the kernel refuses.
        """
        return [found for _kind, found in self._exchange(kind, body, NLM_F_DUMP)]

    def _exchange(self, kind: int, body: bytes, flags: int) -> Iterator[tuple[int, bytes]]:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0)
        self._socket.send(header + body)
        for answered, flags_there, found in self._answers():
            if answered == _NLMSG_DONE:
                return
            if answered == _NLMSG_ERROR:
                _check(flags_there, found)
                return
            yield answered, found

    def _answers(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield kind, flags and body of the messages that answer the last request."""
        for _ in range(_MESSAGES):
            try:
                datagram = self._socket.recv(1 << 18)
            except TimeoutError:
                raise NetlinkRefusal(errno.ETIMEDOUT, "the kernel did not answer") from None
            yield from self._messages(datagram)

    def _messages(self, datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
        offset = 0
        while offset + _HEADER.size <= len(datagram):
            length, kind, flags, sequence, _port = _HEADER.unpack_from(datagram, offset)
            if length < _HEADER.size:
                return
            if sequence == self._sequence:
                yield kind, flags, datagram[offset + _HEADER.size : offset + length]
            offset += _aligned(length)


def _check(flags: int, body: bytes) -> None:
    """Raise for an error message (``struct nlmsgerr``) that is not an acknowledgement."""
    code = -struct.unpack_from("=i", body)[0]
    if code == 0:
        return
    # The request's header follows, and with it its body unless the kernel capped the answer.
    length = struct.unpack_from("=I", body, 4)[0]
    start = 4 + (_HEADER.size if flags & _NLM_F_CAPPED else _aligned(length))
    extra = attributes(body[start:]) if flags & _NLM_F_ACK_TLVS else {}
    raise NetlinkRefusal(code, text(extra.get(_NLMSGERR_ATTR_MSG, b"")))


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded."""
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *values: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(values))


def attributes(data: bytes) -> dict[int, bytes]:
    """Return attributes by kind; of several of one kind the last."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += _aligned(length)
    return found


def text(value: bytes) -> str:
    """Return an attribute that is a string."""
    return value.split(b"\0")[0].decode(errors="replace")


def number(value: bytes | None) -> int:
    """Return an attribute that is an unsigned number in this machine's order; 0 when it is absent."""
    return int.from_bytes(value or b"", sys.byteorder)


def _aligned(length: int) -> int:
    return length + 3 & ~3
