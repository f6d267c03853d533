# SPDX-License-Identifier: Apache-2.0
"""steer on single packets: which link is chosen, what is written, and what passes as it was."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.hooks import namespaces
from emptcp.lab import namespace
from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss, MpCapable, MpJoinSyn
from emptcp.packet.tcp import Nop, Timestamps
from emptcp_actor_steer.chosen import chosen

pytestmark = pytest.mark.kernel

V6 = {"family": 6, "src": "fd00::1", "dst": "fd00::2"}
FULL = [Nop(), Nop(), Timestamps(1, 2), Dss(data_ack=1, dsn=2, data_length=4, checksum=3)]
HOSTILE = [b"\x1e\x04\x20\x08" * 2, Nop(), bytes((254, 4, 0x1E, 3)), Nop(), Nop(), Dss(data_ack=1)]
SHAPES: list[dict[str, Any]] = [
    {"options": FULL},
    {"options": HOSTILE},
    {"options": [Dss(data_ack=1, dsn=2, data_length=4)], "payload": b"four"},
    {"options": FULL, **V6},
    {"options": FULL, "vlan": [7]},
    {"options": FULL, "vlan": [7], **V6},
    {"options": FULL, "ip_options": b"\x01\x01\x01\x00"},
]
IDS = ["ipv4", "hostile", "data", "ipv6", "vlan", "ipv6 in vlan", "ip options"]
MACS = {"one": "02:00:00:00:01:01", "two": "02:00:00:00:01:02", "narrow": "02:00:00:00:01:03"}
MARK, IFINDEX, GSO_SEGS, GSO_SIZE = 8, 40, 164, 176
"""Places in struct __sk_buff."""


@pytest.fixture(scope="module")
def links() -> Iterator[str]:
    """A namespace with links: two that are up, one with a small MTU, one that is down."""
    name = f"emt{os.getpid()}-steer"
    namespace.add(name)
    lines = ["link set lo up", cable("idle")]
    lines += [f"{cable(link)}\nlink set {link} address {mac}" for link, mac in MACS.items()]
    lines += [f"link set {link} up\nlink set {link}-far up" for link in MACS]
    lines += ["link set narrow mtu 1300", "addr add 10.0.0.9/24 dev one", "addr add fd00::9/64 dev one nodad"]
    try:
        namespace.ip_batch(lines, netns=name)
        yield name
    finally:
        namespace.remove(name)


def cable(link: str) -> str:
    return f"link add {link} type veth peer name {link}-far"


@pytest.fixture
def steer(policy: Callable[..., Any], links: str) -> Callable[..., Any]:
    """Make policies that name the links, and run packets in the links' namespace."""

    def make(*do: str, **more: Any) -> In:
        return In(links, policy(*do, netns=links, **more))

    return make


def inside(netns: str, action: Callable[[], Any]) -> Any:
    return namespaces.call(namespaces.resolve(netns), action)


class In:
    """A policy whose packets pass in a namespace."""

    def __init__(self, netns: str, runner: Any) -> None:
        self.netns, self.policy = netns, runner

    def run(self, data: bytes, ctx: bytes | None = None) -> Any:
        return inside(self.netns, lambda: self.policy.run(data, ctx=ctx))

    def mark(self, data: bytes, before: int = 0) -> int:
        """Return the mark that a packet has in the end."""
        ctx = skb(mark=before)
        ran = inside(self.netns, lambda: self.policy.loaded.program.test_run(data, ctx=ctx))
        assert ran.data == data
        return int(struct.unpack_from("<I", ran.ctx, MARK)[0])


def skb(mark: int = 0, ifindex: int = 0, gso_size: int = 0) -> bytes:
    ctx = bytearray(192)
    struct.pack_into("<I", ctx, MARK, mark)
    struct.pack_into("<I", ctx, IFINDEX, ifindex)
    if gso_size:
        struct.pack_into("<I", ctx, GSO_SEGS, 2)
        struct.pack_into("<I", ctx, GSO_SIZE, gso_size)
    return bytes(ctx)


def index_of(netns: str, device: str) -> int:
    import socket

    return int(inside(netns, lambda: socket.if_nametoindex(device)))


@pytest.mark.parametrize("hook", ["ingress", "egress"])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_a_bridged_packet_leaves_with_the_link_s_own_address_and_nothing_else_changed(
    steer: Callable[..., Any], shape: dict[str, Any], hook: str
) -> None:
    packet = build(**shape)
    result = steer("steer(to=[two], by=hash, mode=port)", hook=hook).run(packet)
    assert result.verdict == "redirect"
    assert result.data == packet[:6] + bytes.fromhex(MACS["two"].replace(":", "")) + packet[12:]
    assert decode(result.data).valid


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_a_mark_changes_no_byte(steer: Callable[..., Any], shape: dict[str, Any]) -> None:
    runner = steer("steer(to=[two], by=hash, mode=mark, mark=0x30)")
    assert runner.mark(build(**shape)) == 0x30
    assert runner.run(build(**shape)).verdict == "pass"


def test_only_the_mask_s_bits_of_a_mark_are_set(steer: Callable[..., Any]) -> None:
    runner = steer("steer(to=[one], by=hash, mode=mark, mark=0xab, mask=0xf0)")
    assert runner.mark(build(options=FULL), before=0x1234) == 0x12A4


def test_the_link_may_be_told_by_its_place_and_past_the_last_one_begins_anew(
    steer: Callable[..., Any],
) -> None:
    for link, mark in ((0, 0x30), (1, 0x31), (3, 0x31)):
        runner = steer(f"steer(to=[one, two], by=link, link={link}, mode=mark, mark=0x30)")
        assert runner.mark(build(options=FULL)) == mark


@pytest.mark.parametrize("link", ["idle", "lo", "narrow"])
def test_a_packet_that_a_link_can_not_take_passes_as_it_was(steer: Callable[..., Any], link: str) -> None:
    runner = steer(f"steer(to=[{link}], by=hash, mode=port)")
    packet = build(options=FULL, payload=bytes(1300 - 20 - 20 - len(b"".join(o.encode() for o in FULL)) + 1))
    reason = "too_long" if link == "narrow" else "no_link"
    result = runner.run(packet)
    assert (result.verdict, result.data, result.reason) == ("pass", packet, reason)


def test_a_packet_as_long_as_the_mtu_leaves_and_a_merged_one_is_judged_by_its_pieces(
    steer: Callable[..., Any],
) -> None:
    runner = steer("steer(to=[narrow], by=hash, mode=port)")
    options = len(b"".join(option.encode() for option in FULL))
    fits = 1300 - 20 - 20 - options
    assert runner.run(build(options=FULL, payload=bytes(fits))).verdict == "redirect"
    merged = build(options=FULL, payload=bytes(2 * fits))
    assert runner.run(merged, skb(gso_size=fits)).verdict == "redirect"
    assert runner.run(merged, skb(gso_size=fits + 1)).reason == "too_long"


def test_a_link_that_is_gone_lets_packets_pass(steer: Callable[..., Any], links: str) -> None:
    namespace.ip_batch([cable("soon"), "link set soon up", "link set soon-far up"], netns=links)
    policies = [steer(f"steer(to=[soon], by=hash, mode={mode})") for mode in ("port", "nexthop", "mark")]
    assert policies[0].run(build(options=FULL)).verdict == "redirect"
    for change in ("soon-far down", "soon-far up", "soon down"):
        namespace.ip(["link", "set", *change.split()], netns=links)
        for runner in policies:
            left = runner.run(build(options=FULL)).reason != "no_link"
            assert left == (change == "soon-far up" and runner is not policies[1])
    namespace.ip(["link", "delete", "soon"], netns=links)
    for runner in policies:
        result = runner.run(build(options=FULL))
        assert (result.verdict, result.data, result.reason) == ("pass", build(options=FULL), "no_link")


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_no_packet_leaves_by_the_link_that_it_came_in_by(
    steer: Callable[..., Any], links: str, hook: str
) -> None:
    runner = steer("steer(to=[one], by=hash, mode=port)", hook=hook)
    result = runner.run(build(options=FULL), skb(ifindex=index_of(links, "one")))
    assert (result.verdict, result.data) == ("pass", build(options=FULL))
    assert result.reason == ("no_link" if hook == "ingress" else None)


def test_packets_without_ethernet_are_not_bridged(steer: Callable[..., Any]) -> None:
    packet = build(link="none", options=FULL)
    result = steer("steer(to=[one], by=hash, mode=port)", link="none").run(packet)
    assert (result.verdict, result.data, result.reason) == ("pass", packet, "no_link")


def test_a_fragment_goes_the_way_of_its_other_pieces(steer: Callable[..., Any]) -> None:
    packet = build(options=FULL, payload=bytes(16), fragment=(0, True))
    result = steer("steer(to=[one], by=hash, mode=port)").run(packet)
    assert (result.verdict, result.data, result.reason) == ("pass", packet, "fragment")


ROUTED: list[dict[str, Any]] = [{"options": FULL}, {"options": FULL, **V6}]


@pytest.mark.parametrize("shape", ROUTED, ids=["ipv4", "ipv6"])
def test_a_routed_packet_takes_a_hop_and_goes_where_a_route_does(
    steer: Callable[..., Any], links: str, shape: dict[str, Any]
) -> None:
    version = "ipv6" if shape.get("family") == 6 else "ipv4"
    runner = steer("steer(to=[one], by=hash)")
    packet = build(**shape)
    set_forwarding(links, version, 0)
    assert runner.run(packet).reason == "no_link"
    set_forwarding(links, version, 1)
    result = runner.run(packet)
    assert (result.verdict, result.reason) == ("redirect", None)
    after = decode(result.data)
    assert after.valid
    assert (after.ip.ttl if version == "ipv4" else after.ip.hop_limit) == 63  # type: ignore[union-attr]
    assert result.data == build(**shape, ttl=63)
    last = build(**shape, ttl=1)
    result = runner.run(last)
    assert (result.verdict, result.data, result.reason) == ("pass", last, "no_link")
    out = steer("steer(to=[one], by=hash)", hook="egress").run(packet)
    assert (out.verdict, out.data) == ("redirect", packet)


def set_forwarding(netns: str, version: str, value: int) -> None:
    from emptcp.lab.host import Host

    Host("links", netns).set(f"net.{version}.conf.all.forwarding", value)


def test_a_routed_packet_with_a_tag_or_without_a_route_passes(steer: Callable[..., Any], links: str) -> None:
    set_forwarding(links, "ipv4", 1)
    for packet in (build(options=FULL, vlan=[7]), build(options=FULL, dst="10.9.9.9")):
        result = steer("steer(to=[one], by=hash)").run(packet)
        assert (result.verdict, result.data, result.reason) == ("pass", packet, "no_link")
    result = steer("steer(to=[two], by=hash)").run(build(options=FULL))
    assert (result.verdict, result.reason) == ("pass", "no_link")


def capable(sport: int) -> bytes:
    return build(flags="S", sport=sport, options=[MpCapable()])


def join(sport: int, token: int, nonce: int, back: bool = False) -> bytes:
    way = {"src": "10.0.0.2", "dst": "10.0.0.1", "sport": 5001, "dport": sport} if back else {"sport": sport}
    return build(flags="S", options=[MpJoinSyn(token, nonce)], **way)  # type: ignore[arg-type]


def data(sport: int) -> bytes:
    return build(sport=sport, options=[Dss(data_ack=1)])


def test_a_connection_s_subflows_are_counted_and_each_stays_on_its_link(steer: Callable[..., Any]) -> None:
    runner = steer("steer(to=[one, two, narrow], mode=mark, mark=0)")
    numbers = {100: capable(100), 101: join(101, 7, 1), 102: join(102, 7, 2), 103: join(103, 7, 3)}
    assert [runner.mark(syn, 9) for syn in numbers.values()] == [0, 1, 2, 0]
    assert runner.mark(join(200, 8, 1), 9) == 1
    assert [runner.mark(data(port), 9) for port in numbers] == [0, 1, 2, 0]


def test_a_syn_that_is_sent_again_is_no_new_subflow(steer: Callable[..., Any]) -> None:
    runner = steer("steer(to=[one, two, narrow], mode=mark, mark=0)")
    assert [runner.mark(join(101, 7, 1)) for _ in range(3)] == [1, 1, 1]
    assert runner.mark(join(102, 7, 2)) == 2
    assert runner.mark(join(101, 7, 5)) == 0


def test_a_subflow_that_the_peer_opened_is_known_by_its_syn(steer: Callable[..., Any]) -> None:
    runner = steer("steer(to=[one, two], mode=mark, mark=4)", when="subflow(saddr=10.0.0.1)")
    assert runner.mark(join(101, 7, 1, back=True)) == 0
    assert runner.mark(data(101)) == 5


def test_a_subflow_from_before_is_left_alone_and_counted(steer: Callable[..., Any]) -> None:
    packet = data(300)
    for mode in ("port", "nexthop", "mark"):
        result = steer(f"steer(to=[one], mode={mode})").run(packet)
        assert (result.verdict, result.data, result.reason) == ("pass", packet, "unknown_state")


ADDRESSES = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
)


def usable(address: IPv4Address | IPv6Address) -> bool:
    mapped = address.version == 6 and address.packed[:12] == bytes(10) + b"\xff\xff"
    return not (mapped or address.is_multicast or address.is_unspecified)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ADDRESSES.filter(lambda pair: all(map(usable, pair))),
    st.integers(1, 65535),
    st.integers(1, 65535),
    st.data(),
)
def test_by_hash_the_model_s_link_is_chosen_in_both_directions(
    spread: Any, addresses: tuple[Any, Any], sport: int, dport: int, drawn: Any
) -> None:
    source, target = map(str, addresses)
    links = drawn.draw(st.integers(1, 8))
    wanted = chosen(source, sport, target, dport, links)
    family = addresses[0].version
    for src, sp, dst, dp in ((source, sport, target, dport), (target, dport, source, sport)):
        packet = build(family=family, src=src, dst=dst, sport=sp, dport=dp, options=[Dss(data_ack=1)])
        assert spread[links].mark(packet, 99) == wanted


@pytest.fixture
def spread(steer: Callable[..., Any]) -> dict[int, Any]:
    names = ["one", "two", "narrow", "one", "two", "narrow", "one", "two"]
    return {
        count: steer(f"steer(to=[{', '.join(names[:count])}], by=hash, mode=mark, mark=0)")
        for count in range(1, 9)
    }
