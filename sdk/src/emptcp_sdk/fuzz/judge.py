# SPDX-License-Identifier: Apache-2.0
"""Out = in, or valid: what may differ between a packet before and after, and what must not.

A checksum is judged by how far it is off, so that one that was wrong must be wrong by as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from emptcp.packet import checksum as sums
from emptcp.packet.decode import Decoded, Tcp, decode
from emptcp.packet.layers import Ipv4, Ipv6
from emptcp.packet.mptcp import AddAddress, Dss, MpCapable, MpJoinAck, MpJoinSyn, MpJoinSynAck
from emptcp.packet.tcp import Flag, Kind, Placed, walked_length
from emptcp_sdk.fuzz.model import legal
from emptcp_sdk.fuzz.packets import Packet


@dataclass(frozen=True, slots=True)
class Options:
    """A set of options: MPTCP's of these subtypes, and all of these kinds."""

    subtypes: Set[int] = frozenset()
    kinds: Set[int] = frozenset()

    def __contains__(self, option: Placed) -> bool:
        if option.kind == Kind.MPTCP and option.length > 2 and option.raw[2] >> 4 in self.subtypes:
            return True
        return option.kind in self.kinds

    @classmethod
    def union(cls, several: Iterable[Options]) -> Options:
        """Return the options that are in any of them."""
        known = list(several)
        subtypes = frozenset().union(*(one.subtypes for one in known))
        return cls(subtypes, frozenset().union(*(one.kinds for one in known)))

    def without(self, other: Options) -> Options:
        """Return the options that are in this set and not in the other."""
        return Options(self.subtypes - other.subtypes, self.kinds - other.kinds)


NONE = Options()


@dataclass(frozen=True, slots=True)
class Allowed:
    """What whoever changed the packet may have changed.

    insert, remove, rewrite: options that may come, go, and change in place. fields: of ``window``, ``seq``,
    ``ack``, ``flags``, ``urgent`` (TCP), ``ecn``, ``ttl`` (IP) and ``source_mac`` (Ethernet). established:
    what is a packet of an established subflow to Linux must stay one.
    """

    insert: Options = NONE
    remove: Options = NONE
    rewrite: Options = NONE
    fields: Set[str] = frozenset()
    established: bool = False


def complaint(packet: Packet, after: bytes, allowed: Allowed, before: Decoded | None = None) -> str | None:
    """Say what is wrong with a packet that came out, or None. ``before`` saves reading the packet again."""
    if after == packet.data:
        return None
    was, now = before or decode(packet.data, packet.link), decode(after, packet.link)
    return next((what for what, wrong in _faults(was, now, allowed) if wrong), None)


Fault = tuple[str, bool]


def _faults(was: Decoded, now: Decoded, allowed: Allowed) -> Iterator[Fault]:
    a, b = was.tcp, now.tcp
    yield "a packet that is not TCP was changed", a is None
    yield "a TCP packet became none", b is None
    assert a
    assert b
    assert was.ip
    assert now.ip
    grown = b.length - a.length
    yield "the packet got shorter", grown < 0
    yield "something in front of IP was changed", _in_front(was, allowed) != _in_front(now, allowed)
    yield from _ip_faults(was.ip, now.ip, was, now, grown, allowed)
    if _from_tcp_on(was) == _from_tcp_on(now):
        return
    yield "a packet was changed that must not be", was.reason is not None
    yield "the payload was changed", was.payload != now.payload
    yield "what stands behind the packet was changed", now.trailer != was.trailer[grown:]
    yield "more than a pure ACK got longer", bool(grown) and not _bare(was, a)
    yield "TCP's checksum is off by another amount", _tcp_residue(was, a) != _tcp_residue(now, b)
    reserved = was.data[a.offset + 12] & 0xF, now.data[b.offset + 12] & 0xF
    yield "a reserved bit was changed", reserved[0] != reserved[1]
    yield from _header_faults(a, b, allowed)
    yield from _option_faults(a, b, allowed)
    lost = allowed.established and _is_established(a, was) and not _is_established(b, now)
    yield "a subflow's packet has nothing of one left", lost


def _is_established(tcp: Tcp, packet: Decoded) -> bool:
    """Tell whether Linux takes it for one: check_fully_established() in net/mptcp/options.c."""
    if tcp.flags & (Flag.SYN | Flag.RST):
        return True
    known = [one.option for one in tcp.options if legal(one, tcp, bool(packet.payload))]
    return any(
        isinstance(one, MpCapable | MpJoinSyn | MpJoinSynAck | MpJoinAck)
        or (isinstance(one, Dss) and one.data_ack is not None)
        or (isinstance(one, AddAddress) and not one.echo)
        for one in known
    )


def _bare(packet: Decoded, tcp: Tcp) -> bool:
    ends = Flag.SYN | Flag.FIN | Flag.RST
    return bool(tcp.flags & Flag.ACK) and not tcp.flags & ends and not packet.payload


def _ip_faults(
    a: Ipv4 | Ipv6, b: Ipv4 | Ipv6, was: Decoded, now: Decoded, grown: int, allowed: Allowed
) -> Iterator[Fault]:
    start, size = was.ip.offset, (4 if a.src.version == 4 else 6)  # type: ignore[union-attr]
    yield "IP's length does not fit", b.length != a.length + grown
    before = bytearray(was.data[start : was.tcp.offset])  # type: ignore[union-attr]
    after = bytearray(now.data[start : now.tcp.offset])  # type: ignore[union-attr]
    if isinstance(a, Ipv4):
        off = _residue(bytes(before[: a.ihl * 4])), _residue(bytes(after[: a.ihl * 4]))
        yield "IP's checksum is off by another amount", off[0] != off[1]
    if "ecn" in allowed.fields:
        place, bits = (1, 3) if size == 4 else (1, 0x30)
        marked = before[place] & bits != 0 and after[place] & bits == bits
        yield "an ECN mark on a sender that does not understand it", before != after and not marked
        before[place] |= bits
        after[place] |= bits
    place = 8 if size == 4 else 7
    if "ttl" in allowed.fields and after[place] and after[place] == before[place] - 1:
        after[place] = before[place]
    for header in (before, after):
        for span in ((2, 4), (10, 12)) if size == 4 else ((4, 6),):
            header[slice(*span)] = bytes(2)
    yield "IP's header was changed", before != after


def _in_front(packet: Decoded, allowed: Allowed) -> bytes:
    """Return what stands before IP, without what may be changed."""
    assert packet.ip is not None
    front = packet.data[: packet.ip.offset]
    free = packet.ethernet is not None and "source_mac" in allowed.fields
    return front[:6] + front[12:] if free else front


def _from_tcp_on(packet: Decoded) -> bytes:
    assert packet.tcp is not None
    return packet.data[packet.tcp.offset :]


def _residue(data: bytes) -> int:
    return sums.ones_sum(data) % 0xFFFF


def _tcp_residue(packet: Decoded, tcp: Tcp) -> int:
    assert packet.ip is not None
    segment = packet.data[tcp.offset : packet.ip_end]
    return _residue(sums.pseudo_header(packet.ip.src.packed, packet.ip.dst.packed, len(segment)) + segment)


def _header_faults(a: Tcp, b: Tcp, allowed: Allowed) -> Iterator[Fault]:
    yield "a port was changed", (a.sport, a.dport) != (b.sport, b.dport)
    for name in ("seq", "ack", "flags", "window", "urgent"):
        changed = name not in allowed.fields and getattr(a, name) != getattr(b, name)
        yield f"the field {name} was changed", changed


def _option_faults(a: Tcp, b: Tcp, allowed: Allowed) -> Iterator[Fault]:
    yield "an option that was not acted on was changed", not _explained(a, b, allowed)
    rest = a.block[walked_length(a.options) :]
    broken = rest.strip(b"\0")
    yield "bytes that are no options were changed", bool(broken) and not b.block.endswith(rest)
    left = b.block[walked_length(b.options) :].strip(b"\0")
    yield "an option block was broken", bool(left) and not broken


def _explained(a: Tcp, b: Tcp, allowed: Allowed) -> bool:
    """Tell whether the options became others by what is allowed alone; NOPs may go anywhere.

    ``reached``: how many of the options there were are accounted for by those that there are so far.
    """
    before = [one for one in a.options if one.kind > Kind.NOP]
    reached = _after_removals({0}, before, allowed)
    for option in (one for one in b.options if one.kind > Kind.NOP):
        same = {n + 1 for n in reached if n < len(before) and _became(before[n], option, allowed)}
        reached = _after_removals(same | (reached if option in allowed.insert else set()), before, allowed)
    return len(before) in reached


def _after_removals(reached: set[int], before: list[Placed], allowed: Allowed) -> set[int]:
    found = set(reached)
    for n, option in enumerate(before):
        if n in found and option in allowed.remove:
            found.add(n + 1)
    return found


def _became(old: Placed, new: Placed, allowed: Allowed) -> bool:
    rewritten = old.raw[:2] == new.raw[:2] and old in allowed.rewrite and new in allowed.rewrite
    return old.raw == new.raw or rewritten
