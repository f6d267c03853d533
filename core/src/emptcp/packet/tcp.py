# SPDX-License-Identifier: Apache-2.0
"""The TCP header's flags and options: encode one option, and walk an option block as the kernel does."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import ClassVar

from emptcp.packet import mptcp


class Kind(IntEnum):
    """Option kinds that mean something here (IANA, TCP option kind numbers)."""

    EOL = 0
    NOP = 1
    MSS = 2
    WINDOW_SCALE = 3
    SACK_PERMITTED = 4
    SACK = 5
    TIMESTAMPS = 8
    MD5 = 19
    AO = 29
    MPTCP = mptcp.KIND
    FAST_OPEN = 34


class Flag(IntFlag):
    """The nine flag bits, bytes 12 and 13 of the header (RFC 9293 §3.1; AE: RFC 9768)."""

    FIN = 0x001
    SYN = 0x002
    RST = 0x004
    PSH = 0x008
    ACK = 0x010
    URG = 0x020
    ECE = 0x040
    CWR = 0x080
    AE = 0x100

    @classmethod
    def of(cls, letters: str) -> Flag:
        """Return the flags that letters of ``FSRPAUECN`` stand for (N: AE, once NS)."""
        return cls(sum(1 << "FSRPAUECN".index(letter) for letter in set(letters)))


@dataclass(frozen=True, slots=True)
class Nop:
    """One byte of padding."""

    kind: ClassVar[Kind] = Kind.NOP

    def encode(self) -> bytes:
        """Return the whole option."""
        return b"\x01"


@dataclass(frozen=True, slots=True)
class EndOfList:
    """The end of the options: what stands behind it is no option."""

    kind: ClassVar[Kind] = Kind.EOL

    def encode(self) -> bytes:
        """Return the whole option."""
        return b"\x00"


@dataclass(frozen=True, slots=True)
class MaximumSegmentSize:
    """Maximum segment size in bytes (RFC 9293 §3.7.1)."""

    kind: ClassVar[Kind] = Kind.MSS
    size: int

    def encode(self) -> bytes:
        """Return the whole option."""
        return struct.pack("!BBH", self.kind, 4, self.size)


@dataclass(frozen=True, slots=True)
class WindowScale:
    """Shift count of the window field (RFC 7323 §2)."""

    kind: ClassVar[Kind] = Kind.WINDOW_SCALE
    shift: int

    def encode(self) -> bytes:
        """Return the whole option."""
        return bytes((self.kind, 3, self.shift))


@dataclass(frozen=True, slots=True)
class SackPermitted:
    """Selective acknowledgments may be sent (RFC 2018 §2)."""

    kind: ClassVar[Kind] = Kind.SACK_PERMITTED

    def encode(self) -> bytes:
        """Return the whole option."""
        return bytes((self.kind, 2))


@dataclass(frozen=True, slots=True)
class Sack:
    """Blocks of received data, each (left edge, right edge) (RFC 2018 §3)."""

    kind: ClassVar[Kind] = Kind.SACK
    blocks: tuple[tuple[int, int], ...]

    def encode(self) -> bytes:
        """Return the whole option."""
        edges = b"".join(struct.pack("!II", *block) for block in self.blocks)
        return bytes((self.kind, 2 + len(edges))) + edges


@dataclass(frozen=True, slots=True)
class Timestamps:
    """Timestamp value and echo reply (RFC 7323 §3)."""

    kind: ClassVar[Kind] = Kind.TIMESTAMPS
    value: int
    echo: int = 0

    def encode(self) -> bytes:
        """Return the whole option."""
        return struct.pack("!BBII", self.kind, 10, self.value, self.echo)


@dataclass(frozen=True, slots=True)
class Other:
    """An option of any kind with a length byte, its value unread (MD5, AO, Fast Open, broken MPTCP ...)."""

    kind: int
    value: bytes = b""

    def encode(self) -> bytes:
        """Return the whole option."""
        return bytes((self.kind, 2 + len(self.value))) + self.value


PlainOption = Nop | EndOfList | MaximumSegmentSize | WindowScale | SackPermitted | Sack | Timestamps | Other
Option = PlainOption | mptcp.MptcpOption


@dataclass(frozen=True, slots=True)
class Placed:
    """An option where it stands: ``offset`` from the first option byte, ``raw`` as on the wire.

    ``option`` is ``Other`` for a kind that is not read here and for a length that its kind does not have.
    """

    offset: int
    raw: bytes
    option: Option

    @property
    def kind(self) -> int:
        """The kind byte."""
        return self.raw[0]

    @property
    def length(self) -> int:
        """Bytes the option takes; 1 for NOP and EOL."""
        return len(self.raw)

    @property
    def valid_mptcp(self) -> bool:
        """Whether this is an MPTCP option that a receiver would read."""
        return self.kind == Kind.MPTCP and not isinstance(self.option, Other)


def _edges(raw: bytes) -> tuple[tuple[int, int], ...]:
    return tuple(struct.iter_unpack("!II", raw[2:]))


def _plain(raw: bytes) -> PlainOption:
    match raw[0], len(raw):
        case Kind.EOL, _:
            return EndOfList()
        case Kind.NOP, _:
            return Nop()
        case Kind.MSS, 4:
            return MaximumSegmentSize(int.from_bytes(raw[2:], "big"))
        case Kind.WINDOW_SCALE, 3:
            return WindowScale(raw[2])
        case Kind.SACK_PERMITTED, 2:
            return SackPermitted()
        case Kind.SACK, 10 | 18 | 26 | 34:
            return Sack(_edges(raw))
        case Kind.TIMESTAMPS, 10:
            return Timestamps(*struct.unpack("!II", raw[2:]))
    return Other(raw[0], raw[2:])


def decode_option(raw: bytes) -> Option:
    """Read one whole option, exactly as long as its length byte says (one byte for NOP and EOL)."""
    if raw[0] != Kind.MPTCP:
        return _plain(raw)
    return mptcp.decode(raw) or Other(raw[0], raw[2:])


def _lengths(block: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(block):
        if block[at] in (Kind.EOL, Kind.NOP):
            yield at, 1
            if block[at] == Kind.EOL:
                return
            at += 1
            continue
        length = block[at + 1] if at + 1 < len(block) else 0
        if length < 2 or at + length > len(block):
            return
        yield at, length
        at += length


def walk(block: bytes) -> tuple[Placed, ...]:
    """Return the options of a block in order, stopping where the kernel's parsers stop.

    That is at EOL (which is listed), at a length below 2, at one that reaches past the block, and at a
    kind in the last byte without a length. See ``walked_length`` for where it stopped.
    """
    spans = ((at, block[at : at + length]) for at, length in _lengths(block))
    return tuple(Placed(at, raw, decode_option(raw)) for at, raw in spans)


def walked_length(options: Sequence[Placed]) -> int:
    """Return how many bytes of the block ``walk`` understood, up to and with EOL."""
    return options[-1].offset + options[-1].length if options else 0


def encode_options(options: Sequence[Option | bytes], pad: int = Kind.NOP) -> bytes:
    """Return an option block: options and raw bytes in order, filled to a multiple of 4 with ``pad``."""
    block = b"".join(one if isinstance(one, bytes) else one.encode() for one in options)
    return block + bytes((pad,)) * (-len(block) % 4)
