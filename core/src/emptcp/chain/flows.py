# SPDX-License-Identifier: Apache-2.0
"""Read a namespace's flow table: which subflows were seen, and what plugins keep about each."""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from emptcp import pybpf
from emptcp.chain import pins, states
from emptcp.chain.pins import Pins
from emptcp.chain.shared import HEAD_BYTES, KEY_BYTES, SLOT_BYTES
from emptcp.errors import EmptcpError
from emptcp.mptcp import keys
from emptcp.plugins.occasions import Address, ConnectionEntry, Endpoint, FlowEntry

OBJECT = Path(__file__).parent.parent / "programs" / "flow_slot.bpf.o"

# struct order of programs/flow_slot.bpf.c: first word, count of words, key; the words follow
_ORDER = struct.Struct(f"=II{KEY_BYTES}s4x{SLOT_BYTES}s")
# struct emptcp_flow: known, version + 1, opener, inconsistent; tokens in MP_JOINs; keys; tokens of the ends
_HEAD = struct.Struct("=8x4B4x4s4s8s8s4s4s")
_NO_KEY, _KNOWN_AT = bytes(8), 8
_WORD = 8
_ATTEMPTS = 16


@dataclass(frozen=True)
class Head:
    """What an entry of the flow table says of the connection, for the lower end first.

    Keys are as on the wire and secret, ``None`` where not seen; tokens are 0 where not known: those of the
    ends as user space told them, and in ``joined`` what each end said in an MP_JOIN SYN, the other's.
    """

    version: int | None
    keys: tuple[bytes | None, bytes | None]
    tokens: tuple[int, int]
    inconsistent: bool
    joined: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, entry: bytes) -> Head:
        """Read the head of an entry's bytes."""
        _known, version, _opener, inconsistent, *rest = _HEAD.unpack_from(entry)
        first, second = (None if key == _NO_KEY else key for key in rest[2:4])
        joined, tokens = ([int.from_bytes(one, "big") for one in pair] for pair in (rest[:2], rest[4:]))
        told = version - 1 if version else None
        return cls(told, (first, second), (tokens[0], tokens[1]), bool(inconsistent), (joined[0], joined[1]))

    def worked_out(self) -> tuple[int, int] | None:
        """Return the tokens that follow from the keys, ``None`` when they don't."""
        first, second = self.keys
        if first is None or second is None or self.version is None or self.inconsistent:
            return None
        return keys.token(first, self.version), keys.token(second, self.version)

    def known_tokens(self) -> tuple[int, int]:
        """Return the tokens of the ends, by whatever tells them."""
        told = self.tokens if all(self.tokens) else self.worked_out() or self.tokens
        return told[0] or self.joined[1], told[1] or self.joined[0]


class States:
    """A plugin's slot in the entries of a flow table; see :class:`emptcp.plugins.occasions.FlowStates`.

    Slots begin at words of 8 bytes and have them to themselves, also the last one.
    """

    def __init__(self, flows: pybpf.Map, offset: int, size: int) -> None:
        self._flows = flows
        self._offset = offset
        self._size = size
        self._opened = ExitStack()
        self._opened.enter_context(flows)

    def close(self) -> None:
        """Close the table."""
        self._opened.close()

    def get(self, one: Endpoint, other: Endpoint) -> bytes | None:
        """Return the slot's bytes, ``None`` for a subflow without an entry."""
        value = self._flows.lookup(key(one, other))
        start = HEAD_BYTES + self._offset
        return value[start : start + self._size] if value is not None else None

    def put(self, one: Endpoint, other: Endpoint, state: bytes, at: int = 0) -> None:
        """Write the slot's bytes from ``at`` on, making an entry where there is none.

        ``at`` is a multiple of 8, and whole words of 8 bytes are written. Nothing else of the entry is:
        programs on other CPUs go on counting in it. Raises :class:`ValueError` when ``state`` reaches behind
        the slot.
        """
        if at % _WORD or at + len(state) > self._size:
            raise ValueError(f"{len(state)} bytes at {at} are not within a slot of {self._size}")
        flow = key(one, other)
        words = (len(state) + _WORD - 1) // _WORD
        order = _ORDER.pack((self._offset + at) // _WORD, words, flow, state)
        # A busy table may give an entry away again before anything was written to it.
        for _ in range(_ATTEMPTS):
            if self._writer.test_run(order).retval:
                return
            self._make(flow)
        raise EmptcpError("the flow table is too full to keep an entry", fix="Try again.")

    def items(self) -> Iterator[tuple[tuple[Endpoint, Endpoint], bytes]]:
        """Yield the ends and the slot of every MPTCP subflow that programs saw, read in batches."""
        start = HEAD_BYTES + self._offset
        for raw, value in self._flows.items():
            if _known(value):
                yield endpoints(raw), value[start : start + self._size]

    @cached_property
    def _writer(self) -> pybpf.Program:
        loaded = self._opened.enter_context(pybpf.load_object(OBJECT, {"emptcp_flows": self._flows}))
        return loaded.programs["write_slot"]

    def _make(self, flow: bytes) -> None:
        """Make an entry. Whoever writes of a subflow knows that it is one: socket companions may go by it."""
        entry = bytes(_KNOWN_AT) + b"\1"
        try:
            self._flows.update(flow, entry.ljust(HEAD_BYTES + SLOT_BYTES, b"\0"), pybpf.BPF_NOEXIST)
        except pybpf.BpfError as error:
            if error.errno != errno.EEXIST:
                raise


def of_plugin(tree: Pins, cookie: int, plugin: str) -> States | None:
    """Open a plugin's slot in a namespace's flow table, ``None`` when it keeps nothing there."""
    path = tree.flows(cookie)
    place = states.known(tree, cookie).get(plugin)
    if place is None or not path.exists():
        return None
    return States(pybpf.Map.from_pin(path), *place)


def entries(tree: Pins, cookie: int) -> list[FlowEntry]:
    """Return a namespace's MPTCP subflows with every plugin's state, by plugin."""
    path = tree.flows(cookie)
    if not path.exists():
        return []
    places = states.known(tree, cookie)
    with pybpf.Map.from_pin(path) as flows:
        return list(_entries(flows, places, cookie & 0xFFFFFFFF))


def raw(tree: Pins, cookie: int, one: Endpoint, other: Endpoint) -> tuple[bytes, bytes] | None:
    """Return a subflow's key and value in a namespace's flow table, ``None`` where it has none."""
    path = tree.flows(cookie)
    if not path.exists():
        return None
    with pybpf.Map.from_pin(path) as table:
        value = table.lookup(key(one, other))
    return (key(one, other), value) if value is not None else None


def connections(entries: Iterable[FlowEntry], ours: Collection[int] = ()) -> list[ConnectionEntry]:
    """Return subflows by connection, those of an unknown one left out.

    ``ours`` are tokens of this host's ends, which then come first.
    """
    listed = [entry for entry in entries if any(entry.tokens)]
    by_token: dict[int, list[FlowEntry]] = {}
    # Of two subflows that joined each may tell another one of the tokens: first those that tell both.
    for entry in sorted(listed, key=lambda one: not all(one.tokens)):
        known = [token for token in entry.tokens if token]
        group: list[FlowEntry] = next((by_token[token] for token in known if token in by_token), [])
        by_token |= dict.fromkeys(known, group)
    for entry in listed:
        by_token[next(filter(None, entry.tokens))].append(entry)
    groups = {id(group): group for group in by_token.values()}
    return [_connection(group, ours) for group in groups.values()]


def connection_of(cookie: int, ends: Collection[Endpoint]) -> ConnectionEntry | None:
    """Return the connection of the subflow between two ends, as programs of a namespace saw it.

    ``None`` where they did not see how it began: neither its keys nor its MP_JOIN.
    """
    tree = pins.find()
    found = connections(entries(tree, cookie)) if tree is not None else []
    return next((one for one in found if any({*flow.endpoints} == {*ends} for flow in one.subflows)), None)


def _connection(subflows: list[FlowEntry], ours: Collection[int]) -> ConnectionEntry:
    first, second = next((one.tokens for one in subflows if all(one.tokens)), subflows[0].tokens)
    if second in ours and first not in ours:
        first, second = second, first
    return ConnectionEntry((first, second), tuple(subflows))


def _entries(flows: pybpf.Map, places: states.Places, netns: int) -> Iterator[FlowEntry]:
    for raw, value in flows.items():
        if not _known(value):
            continue
        slots = {
            plugin: value[HEAD_BYTES + offset : HEAD_BYTES + offset + size]
            for plugin, (offset, size) in places.items()
        }
        (since,) = struct.unpack_from("=Q", value)
        yield FlowEntry(endpoints(raw), since, slots, raw, netns, Head.of(value).known_tokens())


def _known(value: bytes) -> bool:
    """Return whether an entry is of a subflow: an MPTCP option was seen."""
    return bool(value[_KNOWN_AT])


def key(one: Endpoint, other: Endpoint) -> bytes:
    """Return ``struct emptcp_key`` of two endpoints, in either order: lower address first, then port."""
    first, second = sorted((_mapped(one[0]), struct.pack("!H", one[1])) for one in (one, other))
    return first[0] + second[0] + first[1] + second[1]


def endpoints(raw: bytes) -> tuple[Endpoint, Endpoint]:
    """Return the two endpoints of a ``struct emptcp_key``."""
    ports = struct.unpack_from("!HH", raw, 32)
    return (_unmapped(raw[:16]), ports[0]), (_unmapped(raw[16:32]), ports[1])


def _mapped(address: Address) -> bytes:
    """Return an address as 16 bytes, IPv4 as ::ffff:a.b.c.d."""
    if isinstance(address, IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def _unmapped(raw: bytes) -> Address:
    address = IPv6Address(raw)
    return address.ipv4_mapped or ip_address(raw)
