# SPDX-License-Identifier: Apache-2.0
"""How the keys of sets and maps are written, and the bytes that stand for them.

A key has fields, one behind another without holes; written, they are joined by ``-``:
``10.0.0.1:4000-10.0.0.2:443``.

========== ============================ ===== =================================================
field      written                      bytes packed
========== ============================ ===== =================================================
endpoint   ``10.0.0.1:443``,            18    address, then port, as on the wire
           ``[fd00::1]:443``
ipaddr     ``10.0.0.1``, ``fd00::1``    16    as on the wire, IPv4 as ::ffff:a.b.c.d
prefix     ``10.0.0.0/8``               20    u32 bits of 128, then the address; the only field
port       ``443``                      2     in the machine's byte order
int        ``5``, ``0x1f``              4     unsigned, in the machine's byte order
token      ``0x1a2b3c4d``               4     as int; printed in hexadecimal
========== ============================ ===== =================================================

In a *symmetric* key both halves have the same fields, and the half whose bytes are lower comes first: both
directions of a flow have one key, and so have both ways to write it.
"""

from __future__ import annotations

import re
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.policy import values

LARGEST = 64
"""Bytes of the largest key (``EMPTCP_KEY_SIZE``)."""

_MAPPED = bytes(10) + b"\xff\xff"


class _KeyField(ABC):
    """One part of a key: ``size`` bytes; ``example`` shows how it is written."""

    size: int
    example: str

    @abstractmethod
    def pack(self, text: str) -> bytes:
        """Return the bytes of what is written. Raises :class:`EmptcpError`."""

    @abstractmethod
    def text(self, packed: bytes) -> str:
        """Return how packed bytes are written."""


class _Address(_KeyField):
    size, example = 16, "10.0.0.1"

    def pack(self, text: str) -> bytes:
        return _address_bytes(text)

    def text(self, packed: bytes) -> str:
        return _address_text(packed)


class _Endpoint(_KeyField):
    size, example = 18, "10.0.0.1:443"
    _written = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<four>[0-9.]+)):(?P<port>[0-9]+)")
    _port = values.Port()

    def pack(self, text: str) -> bytes:
        match = self._written.fullmatch(text)
        if match is None:
            fix = "Write address and port, as in 10.0.0.1:443 or [fd00::1]:443."
            raise EmptcpError(f"{quoted(text)} is no endpoint", fix=fix)
        six, four, port = match.groups()
        return _address_bytes(four or six) + self._port.parse(port).to_bytes(2, "big")

    def text(self, packed: bytes) -> str:
        address, port = _address_text(packed[:16]), int.from_bytes(packed[16:], "big")
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class _Prefix(_KeyField):
    size, example = 20, "10.0.0.0/8"

    def pack(self, text: str) -> bytes:
        packed = values.Prefix().pack(values.Prefix().parse(text), values.Field(0, 1, 20), values.no_devices)
        return packed[16:] + packed[:16]

    def text(self, packed: bytes) -> str:
        bits, address = int.from_bytes(packed[:4], sys.byteorder), packed[4:]
        if bits >= 96 and address.startswith(_MAPPED):
            return f"{_address_text(address)}/{bits - 96}"
        import ipaddress

        return f"{ipaddress.IPv6Address(address)}/{bits}"


class _Number(_KeyField):
    """An unsigned number of ``size`` bytes in the machine's byte order."""

    def __init__(self, size: int, kind: values.Port | values.Int, example: str) -> None:
        self.size = size
        self.example = example
        self._kind = kind

    def pack(self, text: str) -> bytes:
        return self._kind.pack(self._kind.parse(text), values.Field(0, self.size), values.no_devices)

    def text(self, packed: bytes) -> str:
        return str(int.from_bytes(packed, sys.byteorder))


class _Token(_Number):
    def text(self, packed: bytes) -> str:
        return f"0x{int.from_bytes(packed, sys.byteorder):08x}"


_FIELDS: dict[str, _KeyField] = {
    "endpoint": _Endpoint(),
    "ipaddr": _Address(),
    "prefix": _Prefix(),
    "port": _Number(2, values.Port(), "443"),
    "int": _Number(4, values.Int(), "5"),
    "token": _Token(4, values.Int(), "0x1a2b3c4d"),
}
FIELDS = tuple(_FIELDS)
"""Every kind of field, as a manifest writes it."""


class KeyFormat:
    """What a key is made of. Raises :class:`EmptcpError` for fields that make no key."""

    separator: ClassVar = "-"

    def __init__(self, fields: Sequence[str], symmetric: bool = False) -> None:
        self.fields = tuple(fields)
        self.symmetric = symmetric
        _check_fields(self.fields, symmetric)
        self._parts = [_FIELDS[name] for name in self.fields]
        if self.size > LARGEST:
            raise EmptcpError(f"its fields have {self.size} bytes", fix=f"At most {LARGEST} are possible.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyFormat) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"KeyFormat({self.fields!r}, {self.symmetric!r})"

    @property
    def size(self) -> int:
        """Bytes of a key."""
        return sum(part.size for part in self._parts)

    @property
    def is_prefix(self) -> bool:
        """Whether entries are prefixes, of which the longest one that holds the packet's address counts."""
        return self.fields == ("prefix",)

    @property
    def example(self) -> str:
        """A key as it is written."""
        return self.separator.join(part.example for part in self._parts)

    def pack(self, text: str) -> bytes:
        """Return the bytes of a written key. Raises :class:`EmptcpError`."""
        words = text.split(self.separator)
        if len(words) != len(self._parts):
            raise EmptcpError(f"{quoted(text)} is no such key", fix=f"Write it as in {self.example}.")
        packed = [part.pack(word) for part, word in zip(self._parts, words, strict=True)]
        whole = b"".join(packed)
        return self._sorted(whole) if self.symmetric else whole

    def text(self, packed: bytes) -> str:
        """Return how a packed key is written."""
        words, at = [], 0
        for part in self._parts:
            words.append(part.text(packed[at : at + part.size]))
            at += part.size
        return self.separator.join(words)

    def _sorted(self, packed: bytes) -> bytes:
        half = len(packed) // 2
        return b"".join(sorted((packed[:half], packed[half:])))


def _check_fields(fields: tuple[str, ...], symmetric: bool) -> None:
    if not fields:
        raise EmptcpError("it has no fields", fix=f"Name some of {', '.join(FIELDS)}.")
    for name in fields:
        if name not in _FIELDS:
            fix = did_you_mean(name, FIELDS) or f"Write one of {', '.join(FIELDS)}."
            raise EmptcpError(f"{quoted(name)} is no field of a key", fix=fix)
    if "prefix" in fields and len(fields) > 1:
        raise EmptcpError("a prefix is looked up alone", fix='Write fields = ["prefix"].')
    half = len(fields) // 2
    if symmetric and (fields[:half] != fields[half:] or not half):
        raise EmptcpError("the halves of a symmetric key must have the same fields", fix="Make them alike.")


def _address_bytes(text: str) -> bytes:
    """Return the 16 bytes of an address. Many are read at once: the C library takes a tenth of the time."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        packed = socket.inet_pton(family, text)
    except (OSError, ValueError):
        return values.mapped(values.IpAddress().parse(text))
    return packed if len(packed) == 16 else _MAPPED + packed


def _address_text(packed: bytes) -> str:
    import ipaddress

    if packed.startswith(_MAPPED):
        return str(ipaddress.IPv4Address(packed[12:]))
    return str(ipaddress.IPv6Address(packed))
