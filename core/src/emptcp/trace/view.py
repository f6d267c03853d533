# SPDX-License-Identifier: Apache-2.0
"""A bounded piece of a packet that is read field by field, and the fields read so far."""

from __future__ import annotations

import socket

Field = tuple[str, str]
"""A field by tshark's name, and its value in tshark's notation."""


class Malformed(Exception):
    """The packet ends before a field that its headers announce: tshark shows nothing further."""


class View:
    """Bytes read by offset. ``size`` is how many there are by the headers: a cut packet has fewer."""

    def __init__(self, data: bytes, size: int, fields: list[Field]) -> None:
        self.data = data
        self.size = size
        self.fields = fields

    def part(self, start: int, end: int | None = None) -> View:
        """Return what is from ``start`` to ``end``; a None ends where this view does."""
        stop = self.size if end is None else end
        return View(self.data[start:stop], max(0, stop - start), self.fields)

    def number(self, at: int, size: int) -> int:
        """Return the big-endian number of ``size`` bytes at ``at``."""
        return int.from_bytes(self.raw(at, size), "big")

    def raw(self, at: int, size: int) -> bytes:
        """Return ``size`` bytes at ``at``."""
        if at + size > len(self.data):
            raise Malformed
        return self.data[at : at + size]

    def put(self, name: str, value: object) -> None:
        """Add a field; a boolean is shown as 0 or 1."""
        self.fields.append((name, str(int(value) if isinstance(value, bool) else value)))

    def decimal(self, name: str, at: int, size: int) -> int:
        """Read a number and add it in decimal."""
        value = self.number(at, size)
        self.put(name, value)
        return value

    def hexadecimal(self, name: str, at: int, size: int, mask: int = -1) -> int:
        """Read a number, mask it, and add it in hexadecimal at its full width."""
        value = self.number(at, size) & mask
        self.put(name, f"0x{value:0{size * 2}x}")
        return value

    def plain(self, name: str, at: int, size: int) -> None:
        """Read bytes and add them as hex digits."""
        self.put(name, self.raw(at, size).hex())

    def address(self, name: str, at: int, size: int) -> None:
        """Read an IPv4 or IPv6 address."""
        family = socket.AF_INET if size == 4 else socket.AF_INET6
        self.put(name, socket.inet_ntop(family, self.raw(at, size)))

    def mac(self, name: str, at: int) -> None:
        """Read an Ethernet address."""
        self.put(name, self.raw(at, 6).hex(":"))

    def bits(self, value: int, names: dict[str, int]) -> None:
        """Add single bits of ``value`` by name."""
        for name, bit in names.items():
            self.put(name, bool(value & bit))
