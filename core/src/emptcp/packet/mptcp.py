# SPDX-License-Identifier: Apache-2.0
"""MPTCP options of RFC 6824 (version 0) and RFC 8684 (version 1) as frozen dataclasses.

``option.encode()`` gives the whole TCP option (kind 30, length, value); ``decode`` reads one back and
returns None for what a receiver ignores: an unknown subtype or a length that its form does not have.
Keys, tokens, nonces and sequence numbers are unsigned integers in the order of the wire; HMACs are bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import ClassVar, Literal

from emptcp.packet.subtype import Subtype

KIND = 30
"""TCP option kind of Multipath TCP."""


class CapableFlag(IntFlag):
    """Flags A, B, C and H of MP_CAPABLE (RFC 8684 §3.1)."""

    CHECKSUM = 0x80
    EXTENSIBILITY = 0x40
    DENY_JOIN = 0x20
    HMAC = 0x01


class DssFlag(IntFlag):
    """Flags F, m, M, a and A of DSS (RFC 8684 §3.3)."""

    DATA_FIN = 0x10
    DSN8 = 0x08
    MAP = 0x04
    ACK8 = 0x02
    ACK = 0x01


def _option(subtype: int, nibble: int, value: bytes) -> bytes:
    return bytes((KIND, 3 + len(value), subtype << 4 | nibble & 0xF)) + value


@dataclass(frozen=True, slots=True)
class MpCapable:
    """MP_CAPABLE (RFC 8684 §3.1): 4, 12, 20, 22 or 24 bytes, by which of the optional parts are there.

    Version 1 carries no key on the SYN, the sender's on the SYN/ACK, both on the third ACK, and both with
    the data length (and the checksum when one was agreed) on the first data. Version 0 carries the
    sender's key on SYN and SYN/ACK and both on the third ACK.
    """

    subtype: ClassVar[Subtype] = Subtype.MP_CAPABLE
    sender_key: int | None = None
    receiver_key: int | None = None
    data_length: int | None = None
    checksum: int | None = None
    flags: int = CapableFlag.HMAC
    version: int = 1

    def encode(self) -> bytes:
        """Return the whole option."""
        value = bytes((self.flags,))
        for size, part in (
            (8, self.sender_key),
            (8, self.receiver_key),
            (2, self.data_length),
            (2, self.checksum),
        ):
            value += b"" if part is None else part.to_bytes(size, "big")
        return _option(self.subtype, self.version, value)


@dataclass(frozen=True, slots=True)
class MpJoinSyn:
    """MP_JOIN on a SYN (RFC 8684 §3.2, figure 5): 12 bytes."""

    subtype: ClassVar[Subtype] = Subtype.MP_JOIN
    token: int
    nonce: int
    address_id: int = 0
    backup: bool = False
    reserved: int = 0

    def encode(self) -> bytes:
        """Return the whole option."""
        value = struct.pack("!BII", self.address_id, self.token, self.nonce)
        return _option(self.subtype, self.reserved << 1 | self.backup, value)


@dataclass(frozen=True, slots=True)
class MpJoinSynAck:
    """MP_JOIN on a SYN/ACK (RFC 8684 §3.2, figure 6): 16 bytes; ``hmac`` is the leftmost 64 bits."""

    subtype: ClassVar[Subtype] = Subtype.MP_JOIN
    hmac: bytes
    nonce: int
    address_id: int = 0
    backup: bool = False
    reserved: int = 0

    def encode(self) -> bytes:
        """Return the whole option."""
        value = struct.pack("!B8sI", self.address_id, self.hmac, self.nonce)
        return _option(self.subtype, self.reserved << 1 | self.backup, value)


@dataclass(frozen=True, slots=True)
class MpJoinAck:
    """MP_JOIN on the third ACK (RFC 8684 §3.2, figure 7): 24 bytes; ``hmac`` is the leftmost 160 bits."""

    subtype: ClassVar[Subtype] = Subtype.MP_JOIN
    hmac: bytes
    reserved: int = 0

    def encode(self) -> bytes:
        """Return the whole option."""
        value = struct.pack("!B20s", self.reserved & 0xFF, self.hmac)
        return _option(self.subtype, self.reserved >> 8, value)


@dataclass(frozen=True, slots=True)
class Dss:
    """DSS (RFC 8684 §3.3): data ACK, mapping and DATA_FIN, 4 to 28 bytes.

    ``data_ack`` and ``dsn`` are absent when None, and take 8 bytes, or 4 when their ``wide`` is false.
    ``stray_flags`` are flag bits without effect: reserved ones, and a width whose field is absent.
    """

    subtype: ClassVar[Subtype] = Subtype.DSS
    data_ack: int | None = None
    dsn: int | None = None
    subflow_seq: int = 0
    data_length: int = 0
    checksum: int | None = None
    data_fin: bool = False
    wide_ack: bool = True
    wide_dsn: bool = True
    stray_flags: int = 0
    reserved: int = 0

    @property
    def flags(self) -> int:
        """The flag byte that the present fields ask for, with the stray bits."""
        flags = self.stray_flags | (DssFlag.DATA_FIN if self.data_fin else 0)
        if self.data_ack is not None:
            flags |= DssFlag.ACK | (DssFlag.ACK8 if self.wide_ack else 0)
        if self.dsn is not None:
            flags |= DssFlag.MAP | (DssFlag.DSN8 if self.wide_dsn else 0)
        return flags

    def encode(self) -> bytes:
        """Return the whole option."""
        value = bytes((self.flags,))
        if self.data_ack is not None:
            value += self.data_ack.to_bytes(8 if self.wide_ack else 4, "big")
        if self.dsn is not None:
            value += self.dsn.to_bytes(8 if self.wide_dsn else 4, "big")
            value += struct.pack("!IH", self.subflow_seq, self.data_length)
        if self.checksum is not None:
            value += self.checksum.to_bytes(2, "big")
        return _option(self.subtype, self.reserved, value)


@dataclass(frozen=True, slots=True)
class AddAddress:
    """ADD_ADDR (RFC 8684 §3.4.1; RFC 6824 §3.4.1 for version 0).

    Version 1 announces with an HMAC (16, 18, 28, 30 bytes) and echoes without (8, 10, 20, 22). Version 0
    has the latter lengths, no echo, and tells the address family in the low nibble.
    """

    subtype: ClassVar[Subtype] = Subtype.ADD_ADDR
    address_id: int
    address: IPv4Address | IPv6Address
    port: int | None = None
    hmac: bytes | None = None
    echo: bool = False
    version: Literal[0, 1] = 1
    reserved: int = 0

    def encode(self) -> bytes:
        """Return the whole option."""
        nibble = self.address.version if self.version == 0 else self.reserved << 1 | self.echo
        value = bytes((self.address_id,)) + self.address.packed
        value += b"" if self.port is None else self.port.to_bytes(2, "big")
        return _option(self.subtype, nibble, value + (self.hmac or b""))


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """REMOVE_ADDR (RFC 8684 §3.4.2): one to eight address IDs, 4 to 11 bytes."""

    subtype: ClassVar[Subtype] = Subtype.REMOVE_ADDR
    address_ids: tuple[int, ...]
    reserved: int = 0

    def encode(self) -> bytes:
        """Return the whole option."""
        return _option(self.subtype, self.reserved, bytes(self.address_ids))


@dataclass(frozen=True, slots=True)
class MpPrio:
    """MP_PRIO (RFC 8684 §3.3.8): 3 bytes; version 0 also has 4, with an address ID (RFC 6824 §3.3.8)."""

    subtype: ClassVar[Subtype] = Subtype.MP_PRIO
    backup: bool
    address_id: int | None = None
    reserved: int = 0

    def encode(self) -> bytes:
        """Return the whole option."""
        value = b"" if self.address_id is None else bytes((self.address_id,))
        return _option(self.subtype, self.reserved << 1 | self.backup, value)


@dataclass(frozen=True, slots=True)
class MpFail:
    """MP_FAIL (RFC 8684 §3.7): 12 bytes; ``dsn`` is where the checksum failed."""

    subtype: ClassVar[Subtype] = Subtype.MP_FAIL
    dsn: int
    reserved: int = 0

    def encode(self) -> bytes:
        """Return the whole option."""
        value = struct.pack("!BQ", self.reserved & 0xFF, self.dsn)
        return _option(self.subtype, self.reserved >> 8, value)


@dataclass(frozen=True, slots=True)
class MpFastclose:
    """MP_FASTCLOSE (RFC 8684 §3.5): 12 bytes, with the receiver's key."""

    subtype: ClassVar[Subtype] = Subtype.MP_FASTCLOSE
    receiver_key: int
    reserved: int = 0

    def encode(self) -> bytes:
        """Return the whole option."""
        value = struct.pack("!BQ", self.reserved & 0xFF, self.receiver_key)
        return _option(self.subtype, self.reserved >> 8, value)


@dataclass(frozen=True, slots=True)
class MpTcpReset:
    """MP_TCPRST (RFC 8684 §3.6): 4 bytes, only beside RST; ``flags`` are U, V, W and T (transient)."""

    subtype: ClassVar[Subtype] = Subtype.MP_TCPRST
    reason: int = 0
    flags: int = 0

    def encode(self) -> bytes:
        """Return the whole option."""
        return _option(self.subtype, self.flags, bytes((self.reason,)))


MptcpOption = (
    MpCapable
    | MpJoinSyn
    | MpJoinSynAck
    | MpJoinAck
    | Dss
    | AddAddress
    | RemoveAddress
    | MpPrio
    | MpFail
    | MpFastclose
    | MpTcpReset
)


def _number(raw: bytes, start: int, size: int) -> int | None:
    return int.from_bytes(raw[start : start + size], "big") if len(raw) >= start + size else None


def _capable(raw: bytes) -> MpCapable | None:
    if len(raw) not in (4, 12, 20, 22, 24):
        return None
    return MpCapable(
        sender_key=_number(raw, 4, 8),
        receiver_key=_number(raw, 12, 8),
        data_length=_number(raw, 20, 2),
        checksum=_number(raw, 22, 2),
        flags=raw[3],
        version=raw[2] & 0xF,
    )


def _join(raw: bytes) -> MpJoinSyn | MpJoinSynAck | MpJoinAck | None:
    nibble = raw[2] & 0xF
    if len(raw) == 12:
        address_id, token, nonce = struct.unpack_from("!BII", raw, 3)
        return MpJoinSyn(token, nonce, address_id, bool(nibble & 1), nibble >> 1)
    if len(raw) == 16:
        address_id, hmac, nonce = struct.unpack_from("!B8sI", raw, 3)
        return MpJoinSynAck(hmac, nonce, address_id, bool(nibble & 1), nibble >> 1)
    return MpJoinAck(raw[4:], nibble << 8 | raw[3]) if len(raw) == 24 else None


def _dss(raw: bytes) -> Dss | None:
    if len(raw) < 4:
        return None
    flags = raw[3]
    ack = (8 if flags & DssFlag.ACK8 else 4) if flags & DssFlag.ACK else 0
    dsn = (8 if flags & DssFlag.DSN8 else 4) if flags & DssFlag.MAP else 0
    end = 4 + ack + (dsn + 6 if dsn else 0)
    # The kernel takes two more bytes with or without a mapping, and asks later whether a checksum was agreed.
    if len(raw) not in (end, end + 2):
        return None
    used = DssFlag.DATA_FIN | DssFlag.ACK | DssFlag.MAP
    used |= (DssFlag.ACK8 if ack else 0) | (DssFlag.DSN8 if dsn else 0)
    subflow_seq, data_length = struct.unpack_from("!IH", raw, 4 + ack + dsn) if dsn else (0, 0)
    return Dss(
        data_ack=_number(raw, 4, ack) if ack else None,
        dsn=_number(raw, 4 + ack, dsn) if dsn else None,
        subflow_seq=subflow_seq,
        data_length=data_length,
        checksum=_number(raw, end, 2),
        data_fin=bool(flags & DssFlag.DATA_FIN),
        wide_ack=ack != 4,
        wide_dsn=dsn != 4,
        # As a plain number: a flag type would forget the reserved bits.
        stray_flags=flags & ~int(used),
        reserved=raw[2] & 0xF,
    )


# Length without HMAC -> bytes of address, with port.
_ADDRESS_FORMS = {8: (4, False), 10: (4, True), 20: (16, False), 22: (16, True)}


def _add_address(raw: bytes) -> AddAddress | None:
    nibble = raw[2] & 0xF
    bare = len(raw) in _ADDRESS_FORMS
    size, port = _ADDRESS_FORMS.get(len(raw) if bare else len(raw) - 8, (0, False))
    echo = bool(nibble & 1)
    old = bare and not echo
    if not size or (echo and not bare) or (old and nibble != (4 if size == 4 else 6)):
        return None
    return AddAddress(
        address_id=raw[3],
        address=ip_address(raw[4 : 4 + size]),
        port=_number(raw, 4 + size, 2) if port else None,
        hmac=None if bare else raw[-8:],
        echo=echo,
        version=0 if old else 1,
        reserved=0 if old else nibble >> 1,
    )


def _remove_address(raw: bytes) -> RemoveAddress | None:
    # Eight: MPTCP_RM_IDS_MAX of the kernel; a longer list is ignored as a whole.
    return RemoveAddress(tuple(raw[3:]), raw[2] & 0xF) if 4 <= len(raw) <= 11 else None


def _prio(raw: bytes) -> MpPrio | None:
    if len(raw) not in (3, 4):
        return None
    return MpPrio(bool(raw[2] & 1), raw[3] if len(raw) == 4 else None, (raw[2] & 0xF) >> 1)


def _fail(raw: bytes) -> MpFail | None:
    return MpFail(*_reserved_and_number(raw)) if len(raw) == 12 else None


def _fastclose(raw: bytes) -> MpFastclose | None:
    return MpFastclose(*_reserved_and_number(raw)) if len(raw) == 12 else None


def _reserved_and_number(raw: bytes) -> tuple[int, int]:
    return int.from_bytes(raw[4:12], "big"), (raw[2] & 0xF) << 8 | raw[3]


def _reset(raw: bytes) -> MpTcpReset | None:
    return MpTcpReset(raw[3], raw[2] & 0xF) if len(raw) == 4 else None


_DECODERS: dict[int, Callable[[bytes], MptcpOption | None]] = {
    Subtype.MP_CAPABLE: _capable,
    Subtype.MP_JOIN: _join,
    Subtype.DSS: _dss,
    Subtype.ADD_ADDR: _add_address,
    Subtype.REMOVE_ADDR: _remove_address,
    Subtype.MP_PRIO: _prio,
    Subtype.MP_FAIL: _fail,
    Subtype.MP_FASTCLOSE: _fastclose,
    Subtype.MP_TCPRST: _reset,
}


def decode(raw: bytes) -> MptcpOption | None:
    """Read one whole TCP option of kind 30, exactly as long as its length byte says.

    Returns None for what a receiver ignores: no room for a subtype, a subtype that no RFC defines, or a
    length that is not one of the subtype's. Flags that are reserved are kept, not judged.
    """
    decoder = _DECODERS.get(raw[2] >> 4) if len(raw) >= 3 else None
    return decoder(raw) if decoder else None
