# SPDX-License-Identifier: Apache-2.0
"""Every function that plugins have for packets, on packets that nobody thought of.

The parser finds what an independent decoder finds, all that reads answers what stands in the packet, and
whatever changes leaves the packet as it was, or valid with that change alone; at XDP as at TC.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from emptcp.chain import reasons
from emptcp.packet.decode import Decoded, decode
from emptcp.packet.layers import Ipv4
from emptcp.packet.mptcp import Dss
from emptcp.packet.mptcp import decode as decode_option
from emptcp.packet.tcp import Flag, Kind, Placed
from emptcp.pybpf import LoadedObject, load_object
from emptcp_sdk.fuzz import finding, judge, model
from emptcp_sdk.fuzz.driver import Driver, memory
from emptcp_sdk.fuzz.packets import LEGAL, Packet, option
from emptcp_sdk.fuzz.search import Search, seconds

pytestmark = [pytest.mark.kernel, pytest.mark.fuzz]

JOBS = [
    "nothing",
    "insert_built",
    "insert",
    "remove",
    "rewrite",
    "rewrite_odd",
    "rewrite_option",
    "cap",
    "mark",
    "skip",
    "event",
    "goto",
    "remove_kind",
    "hop",
    "source",
    "skb_mark",
    "leave",
    "neigh",
]
READING = ("nothing", "skip", "event", "goto", "skb_mark", "leave", "neigh")
AT_TC = ("skb_mark", "neigh")
"""What XDP refuses."""
FOUND, NOWHERE, ANY_EXID = 0xFF, 64, 0x10000
"""Places of an option: what the search finds; behind all options. Any identifier of an experimental one."""
MODES = ("plain", "plain", "plain", "plain", "tagged", "gso")
OPTIONS, KEY, PLAIN, TCP, REST = 1, 2, 4, 8, 16
SECONDS = seconds(14)
TAG = 5
SHORTEST_TC = 54
"""A trial at TC takes no shorter frame: it must hold the IP header that it announces."""

ANSWER = struct.Struct("<II QQIHB? 5I 32s16s64s20s20s40s8s8s10s36s 2H2B2I2II16sI2I")
POINTERS = ("tcp", "ip4", "ip6", "bytes", "read", "timestamps", "dss", "join", "flow", "glance", "scratch")


@dataclass(frozen=True)
class Order:
    """What is done to a packet: a job with its arguments, and how the packet comes in."""

    job: str
    number: int = 0
    length: int = 0
    unsafe: bool = False
    scale: int = 0
    data: bytes = b""
    kind: int = 253
    exid: int = ANY_EXID
    tokens: tuple[int, int] = (0, 0)
    prefix: tuple[bytes, int] = (bytes(16), 0)
    needs: int = OPTIONS | KEY | TCP | REST
    mode: str = "plain"

    def encode(self, link: str) -> bytes:
        head = struct.pack("<IHBBI", self.needs, 14 if link == "ethernet" else 0, 0, 0, 0)
        rest = (JOBS.index(self.job), self.number, self.length, self.unsafe, TAG, self.scale, self.scale)
        more = (self.data, self.kind, self.exid, *self.tokens, *self.prefix)
        return head + struct.pack("<5I2B40sBxI2I16sI", *rest, *more)


ORDER = len(Order("nothing").encode("ethernet"))


def searched(random: Random, seen: Decoded, order: Order) -> Order:
    """Draw what the reading functions are asked for: mostly an option and an address that are there."""
    options = [one for one in seen.tcp.options if one.kind > Kind.NOP] if seen.tcp else []
    kind, exid = random.choice((0, 1, 2, 30, 253, 254)), random.choice((ANY_EXID, 0, 0xF989))
    if options and random.random() < 0.8:
        raw = random.choice(options).raw
        kind, exid = raw[0], random.choice((ANY_EXID, int.from_bytes(raw[2:4], "big")))
    address = random.randbytes(16)
    if seen.ip and random.random() < 0.9:
        address = mapped(random.choice((seen.ip.src, seen.ip.dst)).packed)
    prefix = address, random.choice((0, 8, 64, 96, 104, 127, 128))
    tokens = random.getrandbits(32), random.choice((0, random.getrandbits(32)))
    return replace(order, kind=kind, exid=exid, prefix=prefix, tokens=tokens)


def mapped(address: bytes) -> bytes:
    return address if len(address) == 16 else bytes(10) + b"\xff\xff" + address


def drawn(random: Random, one: Packet, seen: Decoded) -> Order:
    """Draw an order; most are such that something can come of them."""
    mode = random.choice(MODES)
    if len(one.data) < SHORTEST_TC or (one.link == "none" and mode == "tagged"):
        mode = "plain"
    order = Order(random.choice(JOBS), mode=mode, unsafe=random.random() < 0.5)
    return ordered(random, searched(random, seen, order), seen.tcp.offset if seen.tcp else 34)


def ordered(random: Random, order: Order, l4: int) -> Order:
    """Draw the arguments of a job."""
    near = max(0, l4 + random.randrange(-2, 64))
    some = TCP | REST | random.choice((OPTIONS | KEY,) * 6 + (OPTIONS | KEY | PLAIN, OPTIONS))
    match order.job:
        case "nothing" | "skip" | "event":
            number = random.choice((near, random.randrange(1, 21), 3000, 0x8000))
            return replace(order, needs=some, number=number if order.job == "nothing" else number % 21)
        case "insert_built":
            data = (option(random) if random.random() < 0.5 else random.choice(LEGAL))[:40]
            length = len(data) if random.random() < 0.95 else random.choice((0, 1, 41, 256, 65535))
            return replace(order, data=data, length=length)
        case "insert":
            return replace(order, data=random.choice([raw for raw in LEGAL if len(raw) == 12]))
        case "remove":
            return replace(order, number=random.choice((random.randrange(16), 2, 3, 5)))
        case "rewrite" | "rewrite_odd":
            return replace(order, number=near, data=random.randbytes(5))
        case "rewrite_option":
            data = random.randbytes(1)
            return replace(order, number=random.randrange(9), length=random.randrange(32), data=data)
        case "cap":
            return replace(order, number=random.choice((0, 1, 500, 64000)), scale=random.randrange(17))
        case "goto" | "skb_mark" | "leave" | "neigh":
            return replace(order, number=random.choice((0, 1, 0x10000)))
        case "source":
            return replace(order, data=random.randbytes(6))
        case "remove_kind":
            return replace(order, number=random.choice((FOUND, FOUND, FOUND, random.randrange(70))))
    return order


ALLOWED_FIELDS = {
    job: frozenset({field})
    for job, field in (("cap", "window"), ("mark", "ecn"), ("hop", "ttl"), ("source", "source_mac"))
}


HEADER = frozenset({"seq", "ack", "flags", "window", "urgent"})
OTHERS = frozenset(range(2, 256)) - {Kind.MPTCP}


def like(raw: bytes) -> judge.Options:
    """Return the options that are what this one is."""
    if raw[0] == Kind.MPTCP and len(raw) > 2:
        return judge.Options(subtypes=frozenset({raw[2] >> 4}))
    return judge.Options(kinds=frozenset({raw[0]}))


def allowed(order: Order, seen: Decoded) -> judge.Allowed:
    """What the order may change."""
    every = frozenset(range(16)) - (frozenset() if order.unsafe else {2})
    named = judge.Options(frozenset({order.number}) & every)
    match order.job:
        case "insert_built" | "insert":
            return judge.Allowed(insert=like(order.data))
        case "remove":
            return judge.Allowed(remove=named)
        case "rewrite_option":
            return judge.Allowed(rewrite=named)
        case "rewrite":
            return judge.Allowed(rewrite=judge.Options(frozenset(range(16)) - {2}, OTHERS), fields=HEADER)
        case "rewrite_odd":
            return judge.Allowed(rewrite=judge.Options(every, OTHERS), fields=HEADER)
        case "remove_kind":
            gone = removed_kind(seen, order) if seen.tcp else None
            return judge.Allowed(remove=like(gone.raw) if gone else judge.NONE)
    return judge.Allowed(fields=ALLOWED_FIELDS.get(order.job, frozenset()))


def gso_ctx() -> bytes:
    ctx = bytearray(192)
    struct.pack_into("<I", ctx, 164, 2)
    struct.pack_into("<I", ctx, 176, 500)
    return bytes(ctx)


GSO = gso_ctx()


@dataclass(frozen=True)
class Ends:
    """What was answered of the packet's two ends."""

    ports: tuple[int, int]
    inside: tuple[bool, bool]
    source: int
    target: int
    connections: tuple[int, int]


@dataclass(frozen=True)
class Outcome:
    """What the program left in its maps and in the packet."""

    tcp: bool
    done: bool
    dss: tuple[Any, ...]
    found: frozenset[str]
    wire: tuple[int, int]
    pure: bool
    subtypes: int
    raw: tuple[bytes, ...]
    ends: Ends
    place: int
    kind: bytes
    chain: int
    longest: int
    devices: int
    backend: str
    before: dict[str, Any]
    after: dict[str, Any]
    packet: bytes

    @property
    def reason(self) -> str:
        return reasons.name(self.after["reason"])


class Trials:
    """The programs of both back-ends, and one packet after the other."""

    def __init__(self, loaded: LoadedObject) -> None:
        names = ("fuzz_xdp", "fuzz_tc", "fuzz_tagged_tc")
        self.drivers = {name: Driver(loaded.programs[name]) for name in names}
        self.order, self.answer = memory(loaded.maps["order"], ORDER), memory(loaded.maps["answer"], 4096)
        assert loaded.btf is not None
        found = loaded.btf.find("answer", "struct")
        assert found is not None
        offsets = {member.name: member.offset for member in loaded.btf.members(found.id)}
        self.before, self.after = offsets["before"], offsets["after"]

    def run(self, one: Packet, order: Order, backend: str) -> Outcome:
        self.order[:ORDER] = order.encode(one.link)
        name = "fuzz_tagged_tc" if order.mode == "tagged" else f"fuzz_{backend}"
        ran = self.drivers[name].run(one.data, GSO if order.mode == "gso" else b"")
        assert ran.answer == {"xdp": 2, "tc": 0}[backend]
        a = ANSWER.unpack_from(self.answer)
        return Outcome(
            a[0] == 1,
            bool(a[1]),
            a[2:8],
            frozenset(name for bit, name in enumerate(POINTERS) if a[8] >> bit & 1),
            (a[9], a[10]),
            bool(a[11]),
            a[12],
            a[13:23],
            Ends(a[23:25], (bool(a[25]), bool(a[26])), a[27], a[28], a[29:31]),
            *a[31:36],
            backend,
            model.members(self.answer[self.before : self.before + 680]),
            model.members(self.answer[self.after : self.after + 680]),
            ran.data,
        )


def parsed_fault(seen: Decoded, order: Order, out: Outcome, found: dict[str, Any], what: str) -> str | None:
    """Compare what is known of a packet with what the model finds; ``found``: before or after the job."""
    wanted = model.expected(seen, tag=order.mode == "tagged")
    if wanted.tcp != out.tcp:
        return f"{what}: TCP is {wanted.tcp}, the parser says {out.tcp}"
    if not wanted.tcp:
        reason = reasons.name(found["reason"])
        return None if reason in wanted.reasons else f"{what}: left alone for {reason}, not {wanted.reasons}"
    values = dict(wanted.found)
    if not order.needs & KEY:
        values |= {"key": found["key"], "direction": 0}
    block = found["block"][: len(values["block"])]
    flags = found["flags"] & ~(model.CHANGED | model.GSO)
    for name, value in values.items():
        mine = {"block": block, "flags": flags}.get(name, found[name])
        if mine != value:
            return f"{what}: {name} is {value!r}, the headers say {mine!r}"
    return None


def read_fault(one: Packet, seen: Decoded, order: Order, out: Outcome) -> str | None:
    """Compare what the reading functions answered with the bytes of the packet."""
    found, data, at = out.before, one.data, order.number
    options = found["subtypes"]
    mapped, gso = found["block"], order.mode == "gso"
    packets = 2 if gso else 1
    (places, lengths, heads, tcp, ip4, ip6, some, read, stamps, ends) = out.raw
    l3, l4 = found["l3"], found["l4"]
    known = ipv4(seen)
    inside = at + 8 <= len(data)
    expected = {
        "tcp": True,
        "ip4": known,
        "ip6": not known,
        "bytes": inside and at <= 0x7FFF,
        "read": inside,
        "timestamps": bool(found["timestamps"]),
        "dss": bool(options & 4),
        "join": bool(options & 2) and found["len"][1] >= 16,
        "scratch": False,
    }
    for name, value in expected.items():
        if (name in out.found) != value:
            return f"reading: {name} is {name in out.found}"
    checks = {
        "tcp": tcp == data[l4 : l4 + 20],
        "ip": (ip4 == data[l3 : l3 + 20]) if known else (ip6 == data[l3 : l3 + 40]),
        "bytes": not expected["bytes"] or some == data[at : at + 8],
        "read": not inside or read == data[at : at + 8],
        "timestamps": not found["timestamps"] or stamps == mapped[found["timestamps"] - 20 :][:10],
        "has": out.subtypes == options,
        "len": lengths == found["len"],
        "at": places == struct.pack("<16H", *(l4 + n if n else 0 for n in found["at"])),
        "find": all(
            heads[4 * n : 4 * n + 3] == mapped[found["at"][n] - 20 :][:3]
            for n in range(16)
            if options >> n & 1
        ),
        "wire": out.wire == (packets, packets * (found["payload"] - l3) + found["payload_len"]),
        "pure ack": out.pure == bool(found["flags"] & model.PURE_ACK),
        "gso": bool(found["flags"] & model.GSO) == gso,
        "endpoints": not order.needs & KEY or ends == endpoints(found["key"]),
        "ends": not order.needs & KEY or out.ends == ends_of(seen, order, found),
        "connection": out.ends.connections == tuple(swapped(token) for token in order.tokens),
        "kind": kind_answers(seen, order, out),
        "dss": not options & 4 or out.dss == dss_of(found),
        "flow": flow_answers(order, found, out),
        "longest": out.longest == found["payload"] - l3 + (500 if gso else found["payload_len"]),
        "devices": out.devices == (1 if out.backend == "tc" else 0),
    }
    return next((f"reading: {name} is wrong" for name, right in checks.items() if not right), None)


def ipv4(seen: Decoded) -> bool:
    assert seen.ip is not None
    return seen.ip.src.version == 4


def endpoints(key: bytes) -> bytes:
    return key[:16] + key[32:34] + key[16:32] + key[34:36]


def ends_of(seen: Decoded, order: Order, found: dict[str, Any]) -> Ends:
    """Say what the functions for addresses must answer of a packet whose sender is at one end of the key."""
    assert seen.ip is not None
    assert seen.tcp is not None
    source = found["direction"]
    sides = [(seen.tcp.sport, mapped(seen.ip.src.packed)), (seen.tcp.dport, mapped(seen.ip.dst.packed))]
    (first, one), (second, other) = sides[::-1] if source else sides
    inside = in_prefix(one, order.prefix), in_prefix(other, order.prefix)
    tokens = swapped(order.tokens[0]), swapped(order.tokens[1])
    return Ends((first, second), inside, source, 1 - source, tokens)


def in_prefix(address: bytes, prefix: tuple[bytes, int]) -> bool:
    first, bits = prefix
    differ = int.from_bytes(address, "big") ^ int.from_bytes(first, "big")
    return not differ >> 128 - bits


def swapped(token: int) -> int:
    return int.from_bytes(token.to_bytes(4, "little"), "big")


def options_of(seen: Decoded) -> list[Placed]:
    """Return what the walk takes for options, legal or not."""
    assert seen.tcp is not None
    return [one for one in seen.tcp.options if one.kind > Kind.NOP]


def place_of_kind(seen: Decoded, order: Order) -> int:
    for one in options_of(seen):
        if one.kind == order.kind and order.exid in (ANY_EXID, *exids(one)):
            return one.offset
    return NOWHERE


def exids(one: Placed) -> list[int]:
    return [int.from_bytes(one.raw[2:4], "big")] if one.length >= 4 else []


def kind_answers(seen: Decoded, order: Order, out: Outcome) -> bool:
    """The first option of the kind is found, and its bytes are read."""
    place = place_of_kind(seen, order)
    if out.place != place or place == NOWHERE:
        return out.place == place
    assert seen.tcp is not None
    size = min(16, len(seen.tcp.block) - place)
    return out.kind[:size] == seen.tcp.block[place : place + size]


def removed_kind(seen: Decoded, order: Order) -> Placed | None:
    """Return the option that must go, if any may."""
    place = place_of_kind(seen, order) if order.number == FOUND else order.number
    found = next((one for one in options_of(seen) if one.offset == place), None)
    dss = found and found.kind == Kind.MPTCP and found.length > 2 and found.raw[2] >> 4 == 2
    return None if dss and not order.unsafe else found


def kind_goes(seen: Decoded, order: Order, out: Outcome) -> bool:
    return not out.before["no_modify"] and removed_kind(seen, order) is not None


def dss_of(found: dict[str, Any]) -> tuple[Any, ...]:
    at = found["at"][2] - 20
    known = decode_option(found["block"][at : at + found["len"][2]])
    assert isinstance(known, Dss)
    return model.dss(known)


def flow_answers(order: Order, found: dict[str, Any], out: Outcome) -> bool:
    """A SYN and an MPTCP option make an entry; others may have one of an earlier packet."""
    return "flow" in out.found or not (found["tcp_flags"] & 0x02 or found["subtypes"])


def glance_fault(order: Order, out: Outcome) -> str | None:
    if "glance" in out.found:
        return None
    if not out.tcp:
        return None if out.before["reason"] == 0 else "the glance lets go what is to be counted"
    if order.needs & PLAIN:
        return "the glance lets go plain TCP that is wanted"
    return "the glance lets go an MPTCP option" if out.before["subtypes"] else None


def job_fault(one: Packet, seen: Decoded, order: Order, out: Outcome) -> str | None:
    """Judge the packet that came out, and the answer."""
    changed = out.packet != one.data
    if changed and not out.done:
        return "changed, and said that it is not"
    if changed and order.job in READING:
        return "changed by what only reads"
    if changed and order.mode == "gso" and len(out.packet) != len(one.data):
        return "a merged packet got longer"
    if not out.done and out.tcp and order.job not in (*READING, "mark") and not out.after["reason"]:
        return "not done, and no reason"
    if out.done and order.job not in READING and out.after["reason"]:
        return "done, and a reason not to"
    if (
        out.tcp
        and order.job == "goto"
        and (out.done, out.done and out.chain) != (bool(order.number), order.number)
    ):
        return "goes on in another chain"
    if out.tcp and order.job == "remove_kind" and out.done != kind_goes(seen, order, out):
        return "an option that may go stays, or one goes that may not"
    wrong = judge.complaint(one, out.packet, allowed(order, seen), seen)
    if wrong or not (out.tcp and out.done):
        return wrong
    after = decode(out.packet, one.link)
    wrong = None if effect(order, out, seen, after) else "done, but it is not so"
    return wrong or parsed_fault(after, order, out, out.after, "after the job")


def effect(order: Order, out: Outcome, before: Decoded, after: Decoded) -> bool:
    """Tell whether what was asked for is so in the packet that came out."""
    assert before.tcp is not None
    assert after.tcp is not None
    match order.job:
        case "insert" | "insert_built":
            wanted = order.data[:12] if order.job == "insert" else order.data
            return wanted in [option.raw for option in after.tcp.options]
        case "remove":
            return order.number not in mptcp(after) and order.number in mptcp(before)
        case "rewrite" | "rewrite_odd":
            size = 2 if order.job == "rewrite" else 5
            return after.data == written(before, after, order.number, order.data[:size])
        case "rewrite_option":
            at = out.before["l4"] + out.before["at"][order.number] + order.length
            return after.data == written(before, after, at, order.data[:1])
        case "remove_kind":
            gone = removed_kind(before, order)
            assert gone is not None
            at = before.tcp.offset + 20 + gone.offset
            return after.data == written(before, after, at, b"\x01" * gone.length)
        case "cap":
            window = before.tcp.window
            limit = max(1, order.number >> (order.scale - 1)) if order.scale else window
            kept = bool(before.tcp.flags & Flag.SYN)
            return after.tcp.window == (window if kept else min(window, limit))
        case "mark":
            assert after.ip is not None
            place = after.ip.offset + 1
            return after.data[place] & (3 if ipv4(after) else 0x30) == (3 if ipv4(after) else 0x30)
        case "hop":
            return hops(after) == hops(before) - 1 > 0
        case "source":
            return after.data == before.data[:6] + order.data[:6] + before.data[12:]
    return after.data == before.data


def hops(packet: Decoded) -> int:
    assert packet.ip is not None
    return packet.ip.ttl if isinstance(packet.ip, Ipv4) else packet.ip.hop_limit


def mptcp(packet: Decoded) -> set[int]:
    """Return the subtypes of legal MPTCP options."""
    assert packet.tcp is not None
    options = [one for one in packet.tcp.options if one.kind == Kind.MPTCP]
    return {one.raw[2] >> 4 for one in options if model.legal(one, packet.tcp, bool(packet.payload))}


def written(before: Decoded, after: Decoded, at: int, new: bytes) -> bytes:
    """Return the packet with bytes written into it, and the checksum that it has afterwards."""
    assert before.tcp is not None
    data, check = bytearray(before.data), before.tcp.offset + 16
    data[at : at + len(new)] = new
    data[check : check + 2] = after.data[check : check + 2]
    return bytes(data)


class Helpers:
    """One packet through the headers' functions; remembers nothing but the trials."""

    def __init__(self, trials: Trials) -> None:
        self.trials = trials

    def outcomes(self, one: Packet, order: Order) -> list[Outcome]:
        backends = ("xdp", "tc") if order.mode == "plain" and order.job not in AT_TC else ("tc",)
        if len(one.data) < SHORTEST_TC:
            backends = ("xdp",)
        return [self.trials.run(one, order, backend) for backend in backends]

    def fault(self, one: Packet, seen: Decoded, order: Order, outs: list[Outcome]) -> str | None:
        out = outs[0]
        if len(outs) == 2 and alike(outs[0], order) != alike(outs[1], order):
            return "XDP and TC differ"
        what = parsed_fault(seen, order, out, out.before, "parsing") or glance_fault(order, out)
        if out.tcp:
            what = what or read_fault(one, seen, order, out)
        return what or job_fault(one, seen, order, out)

    def __call__(self, one: Packet, random: Random) -> list[Hashable]:
        seen = decode(one.data, one.link)
        behaviours: list[Hashable] = []
        for _ in range(3):
            order = drawn(random, one, seen)
            outs = self.outcomes(one, order)
            what = self.fault(one, seen, order, outs)
            if what:
                pytest.fail(self.found(what, one, order), pytrace=False)
            behaviours += signatures(one, order, outs[0])
        return behaviours

    def found(self, what: str, one: Packet, order: Order) -> str:
        def fails(smaller: Packet) -> bool:
            if order.mode != "plain" and len(smaller.data) < SHORTEST_TC:
                return False
            outs = self.outcomes(smaller, order)
            again = self.fault(smaller, decode(smaller.data, smaller.link), order, outs)
            return again is not None and again.split(" is ")[0] == what.split(" is ", maxsplit=1)[0]

        return finding.report(what, finding.minimised(one, fails), repr(order), SEARCHED[-1].seed)


SEARCHED: list[Search] = []


def alike(out: Outcome, order: Order) -> tuple[Any, ...]:
    """What both back-ends must agree on."""
    known = [{name: found[name] for name in (*model.FIELDS, "reason")} for found in (out.before, out.after)]
    if not out.tcp:
        return out.tcp, out.reason, out.packet
    for found in known:
        found["block"] = found["block"][: found["payload"] - found["l4"] - 20]
    # An event is sent as long as there is room for it.
    done = out.done and order.job != "event"
    return out.tcp, done, out.packet, known, out.found, out.wire, out.pure, out.place, out.ends


def signatures(one: Packet, order: Order, out: Outcome) -> list[Hashable]:
    """What tells one behaviour from another: how the job went, what was found, and where."""
    found = out.before
    grown = len(out.packet) - len(one.data)
    job = (order.job, out.done, out.tcp, out.reason, found["no_modify"], out.packet != one.data, grown)
    if not out.tcp:
        return [job]
    options = ("options", found["subtypes"], found["repeated"], found["flags"], found["tcp_flags"] & 7)
    place = ("place", found["l3"], min(found["l4"] - found["l3"], 200), found["options_len"])
    lengths = [("length", n, found["len"][n], found["at"][n]) for n in range(16) if found["len"][n]]
    return [job, options, place, *lengths]


@pytest.fixture(scope="module")
def helpers(objects: dict[str, Path]) -> Iterator[Helpers]:
    with load_object(objects["fuzz"]) as loaded:
        yield Helpers(Trials(loaded))


@pytest.mark.timeout(SECONDS + 120)
def test_every_function_leaves_a_packet_as_it_was_or_valid(helpers: Helpers) -> None:
    search = Search(helpers)
    SEARCHED.append(search)
    search.run(SECONDS)
    runs = sum(driver.runs for driver in helpers.trials.drivers.values())
    print(f"seed {search.seed}: {search.packets} packets, {runs} runs, {len(search.seen)} behaviours")
    assert runs > search.packets
    done = {seen[0] for seen in search.seen if seen[1] is True}  # type: ignore[index]
    assert done >= set(JOBS) - {"nothing", "skip"}
