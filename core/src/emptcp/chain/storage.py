# SPDX-License-Identifier: Apache-2.0
"""What a set or a map is in the kernel, and how its entries are written.

A key stands there as its fragment writes it (:mod:`emptcp.policy.keys`). The value of a set's entry is a u64:
the time, of CLOCK_MONOTONIC in nanoseconds, from which on the entry does not count any more, 0 for never. A
map's has eight bytes more: the value, packed as for the parameter that reads it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emptcp.errors import EmptcpError, quoted
from emptcp.plugins.manifest import Parameter, check_range
from emptcp.policy import values
from emptcp.policy.keys import KeyFormat

if TYPE_CHECKING:
    from emptcp.chain.plan import FragmentRef

VALUE_BYTES = 8
"""Bytes that a map has for a value."""

_EXPIRY = struct.Struct("=Q")


@dataclass(frozen=True)
class Storage:
    """What makes two kernel maps interchangeable.

    ``key`` and ``value`` say how the bytes are laid out (``value`` is empty for a set); ``size`` is in
    entries.
    """

    key: str
    key_size: int
    value: str
    size: int
    lru: bool
    prefix: bool

    @property
    def kind(self) -> str:
        """The kernel's kind of map."""
        return "lpm_trie" if self.prefix else "lru_hash" if self.lru else "hash"

    @property
    def value_size(self) -> int:
        """Bytes of an entry's value."""
        return _EXPIRY.size + (VALUE_BYTES if self.value else 0)

    @property
    def layout(self) -> str:
        """A hash over what entries look like: maps that share it can be copied into each other."""
        return _hash(self.key, self.value)

    @property
    def shape(self) -> str:
        """A hash over the rest."""
        return _hash(self.kind, self.size)


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class ValueForm:
    """How the values of a map are read and packed: as by the parameter that reads it.

    ``reader`` names that parameter in errors.
    """

    parameter: Parameter
    field: values.Field
    reader: str

    @property
    def layout(self) -> str:
        """What parameters that read one map must have in common: type, unit, range, bytes."""
        one, member = self.parameter, self.field
        return repr((one.type.meaning, one.minimum, one.maximum, member.size, member.signed))

    def pack(self, text: str) -> bytes:
        """Return the eight bytes of a written value. Raises :class:`EmptcpError`."""
        value = self.parameter.type.parse(text)
        check_range(self.parameter, value)
        packed = self.parameter.type.pack(value, self.field, values.no_devices)
        return packed.ljust(VALUE_BYTES, b"\0")

    def text(self, packed: bytes) -> str:
        """Return how a packed value is written."""
        kind = self.parameter.type
        return kind.format(kind.unpack(packed[: self.field.size], self.field))


@dataclass(frozen=True)
class Store:
    """A set or a map of a table.

    ``kind`` is ``"set"`` or ``"map"``, ``key`` the fragment that tells a packet's key, ``entries`` what the
    file lists, packed (``None``: it lists none), ``timeout`` in nanoseconds.
    """

    kind: str
    table: str
    name: str
    key: FragmentRef
    storage: Storage
    format: KeyFormat
    value: ValueForm | None = field(default=None, compare=False, repr=False)
    timeout: int = field(default=0, compare=False, repr=False)
    entries: tuple[tuple[bytes, bytes], ...] | None = field(default=None, compare=False, repr=False)

    @property
    def title(self) -> str:
        """What errors call it."""
        return f"{self.kind} {quoted(self.name)}"

    def key_of(self, text: str) -> bytes:
        """Return the bytes of a written key. Raises :class:`EmptcpError`."""
        try:
            return self.format.pack(text)
        except EmptcpError as error:
            raise EmptcpError(f"{self.title}: {error.sentence}", fix=error.fix) from None

    def value_of(self, text: str) -> bytes:
        """Return the bytes of a written value; a set's entries have none. Raises :class:`EmptcpError`."""
        if self.value is None:
            return b""
        try:
            return self.value.pack(text)
        except EmptcpError as error:
            raise EmptcpError(f"{self.title}: {error.sentence}", fix=error.fix) from None

    def text(self, value: bytes) -> str:
        """Return how the value of an entry (as in the kernel) is written; empty for a set's."""
        return self.value.text(value[_EXPIRY.size :]) if self.value is not None else ""


def entry(value: bytes, expiry: int) -> bytes:
    """Return an entry's value as it stands in the kernel."""
    return _EXPIRY.pack(expiry) + value


def expiry(stored: bytes) -> int:
    """Return until when an entry counts; 0: for ever."""
    return int(_EXPIRY.unpack_from(stored)[0])


def lives(stored: bytes, now: int) -> bool:
    """Whether an entry counts at a time."""
    until = expiry(stored)
    return not until or until > now


def says(stored: bytes) -> bytes:
    """Return an entry's own value, without until when it counts."""
    return stored[_EXPIRY.size :]
