# SPDX-License-Identifier: Apache-2.0
"""What blk_subflow does to single packets, on both engines: what it keeps back, stores and forgets."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp import pybpf
from emptcp.api import StageEvent
from emptcp.control.duty import decode as told
from emptcp.packet.build import build
from emptcp.packet.decode import Decoded, decode
from emptcp.packet.mptcp import AddAddress, Dss, MpCapable, MpJoinAck, MpJoinSyn, MpPrio, RemoveAddress
from emptcp.packet.tcp import Nop, Other, Timestamps
from emptcp_actor_blk_subflow.blocked import forget, removed
from emptcp_actor_blk_subflow.hooks import emptcp_describe

pytestmark = pytest.mark.kernel

V6 = {"family": 6, "src": "fd00::1", "dst": "fd00::2"}
SHAPES: list[dict[str, Any]] = [{}, V6, {"vlan": [7]}]
TIME, ACK = Timestamps(7, 9), Dss(data_ack=1)
HMAC = b"\x1e\x10\x03\x04\x05\x06\x07\x08"
FOUR, SIX = ip_address("10.9.0.7"), ip_address("fd09::7")
FORMS = [
    AddAddress(3, FOUR, hmac=HMAC),
    AddAddress(3, FOUR, port=443, hmac=HMAC),
    AddAddress(3, SIX, hmac=HMAC),
    AddAddress(3, SIX, port=443, hmac=HMAC),
    AddAddress(3, FOUR, version=0),
    AddAddress(3, FOUR, port=443, version=0),
    AddAddress(3, SIX, version=0),
    AddAddress(3, SIX, port=443, version=0),
]
JOIN = MpJoinSyn(token=5, nonce=6, address_id=1)


def options(packet: Decoded) -> list[object]:
    assert packet.tcp is not None
    return [placed.option for placed in packet.tcp.options if not isinstance(placed.option, Nop)]


def stored(runner: Any) -> list[bytes]:
    """The options that are kept back, of all subflows."""
    found = []
    for _key, value in runner.map("blocked_addresses").items():
        for length, given_back, option in struct.iter_unpack("=BB30s8x", value):
            if length and not given_back:
                found.append(option[:length])
    return found


def anew(runner: Any, **shape: Any) -> None:
    """Begin a connection on the same ports, so that nothing is known of the one before."""
    runner.run(build(**shape, flags="FA"))
    runner.run(build(**shape, flags="S", options=[MpCapable()]))
    assert stored(runner) == []


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_an_announcement_alone_is_dropped_and_stored(policy: Callable[..., Any], hook: str) -> None:
    """NOPs in its place would leave the first ACK without MPTCP: the connection would fall back."""
    runner = policy("blk_subflow()", hook=hook)
    for shape in SHAPES:
        for form in FORMS:
            assert runner.run(build(**shape, options=[form])).verdict == "drop"
            assert stored(runner) == [form.encode()]
            anew(runner, **shape)


@pytest.mark.parametrize("payload", [b"", b"\x1e\x10\x30\x03data"], ids=["ack", "data"])
def test_beside_a_dss_it_becomes_nops_wherever_it_stands(policy: Callable[..., Any], payload: bytes) -> None:
    dss = Dss(data_ack=1, wide_ack=False, dsn=2, data_length=8, wide_dsn=False) if payload else ACK
    runner = policy("blk_subflow()")
    for form in (one for one in FORMS if len(one.encode()) <= 18):
        for block in ([form, dss], [dss, form], [Nop(), dss, form], [Nop(), form, Nop(), dss]):
            packet = build(options=block, payload=payload)
            result = runner.run(packet)
            out = decode(result.data)
            assert (result.verdict, out.valid, out.payload) == ("pass", True, payload)
            assert (options(out), len(out.data)) == ([dss], len(packet))
            assert stored(runner) == [form.encode()]
            anew(runner)


def test_a_merged_packet_is_changed_in_place(policy: Callable[..., Any]) -> None:
    merged = bytearray(192)  # struct __sk_buff
    struct.pack_into("=I8xI", merged, 164, 2, 100)  # gso_segs, gso_size
    dss = Dss(data_ack=1, wide_ack=False, dsn=2, data_length=200, wide_dsn=False)
    runner = policy("blk_subflow()", hook="egress")
    result = runner.run(build(options=[dss, FORMS[0]], payload=bytes(200)), ctx=bytes(merged))
    assert (decode(result.data).valid, options(decode(result.data))) == (True, [dss])
    assert stored(runner) == [FORMS[0].encode()]


UNTOUCHED: list[tuple[bytes, str | None]] = [
    (build(options=[AddAddress(3, FOUR, echo=True)]), None),
    (build(options=[ACK, AddAddress(3, SIX, echo=True)]), None),
    (build(options=[ACK, AddAddress(3, FOUR, version=0), Other(19, bytes(16))]), "signed"),
    (build(options=[ACK, FORMS[0]], fragment=(0, True)), "fragment"),
    (build(options=[FORMS[0]], payload=b"data"), "unsafe"),
    (build(options=[FORMS[0], MpPrio(backup=True)]), "unsafe"),
    (build(options=[FORMS[0], Dss(dsn=1, data_length=4)], payload=b"data"), "unsafe"),
    (build(options=[bytes((30, 9)) + FORMS[0].encode()[2:9]]), None),
    (build(options=[ACK, TIME], payload=FORMS[0].encode()), None),
    (
        build(options=[TIME, Dss(data_ack=1, dsn=2, data_length=16, checksum=3)], payload=FORMS[0].encode()),
        None,
    ),
    (build(options=[MpJoinAck(bytes(20))]), None),
    (build(flags="SA", options=[MpCapable(sender_key=1)]), None),
    (build(flags="S", options=[MpCapable()]), None),
]


def test_these_stay_as_they_are(policy: Callable[..., Any]) -> None:
    """Echoes, what may not be changed, broken options, and data that looks like an announcement."""
    runner = policy("blk_subflow()")
    for packet, reason in UNTOUCHED:
        result = runner.run(packet)
        assert (result.verdict, result.data, result.reason) == ("pass", packet, reason)
        anew(runner)


def test_it_is_forgotten_when_it_is_removed(policy: Callable[..., Any]) -> None:
    runner = policy("blk_subflow()")
    runner.run(build(options=[FORMS[0]]))
    runner.run(build(options=[AddAddress(4, FOUR, hmac=HMAC)]))
    runner.run(build(options=[ACK, RemoveAddress((9, 3))]))
    assert stored(runner) == [AddAddress(4, FOUR, hmac=HMAC).encode()]


def test_a_removal_is_told_to_user_space_which_knows_the_connections_other_subflows(
    policy: Callable[..., Any],
) -> None:
    runner = policy("blk_subflow()")
    for shape in SHAPES:
        for ids in ((3,), tuple(range(1, 9))):
            runner.run(build(**shape, options=[ACK, RemoveAddress(ids), TIME]))
            (event,) = events(runner)
            assert (event.type, removed(event.data), event.direction) == (2, set(ids), 0)
            shown = emptcp_describe(event)
            assert shown is not None
            assert (shown["event"], shown["ids"]) == ("ADDRESS_REMOVED", sorted(ids))
    runner.run(build(options=[ACK, FORMS[0]]))
    assert events(runner) == []


def test_what_is_announced_after_a_removal_on_another_subflow_outlives_it(
    policy: Callable[..., Any],
) -> None:
    """User space hears of it later than the program sees what follows."""
    runner = policy("blk_subflow()")
    gone, repeated, last = (AddAddress(number, FOUR, hmac=HMAC) for number in (3, 4, 5))
    for option in (gone, repeated):
        runner.run(build(options=[option]))
    runner.run(build(sport=50000, options=[ACK, RemoveAddress((3, 4, 5))]))
    for option in (repeated, last):
        runner.run(build(options=[option]))
    (event,) = events(runner)
    table = runner.map("blocked_addresses")
    for key, _value in table.items():
        forget(table, key, removed(event.data), event.time)
    assert sorted(stored(runner)) == [repeated.encode(), last.encode()]


def events(runner: Any) -> list[StageEvent]:
    """Take what was sent to user space."""
    heard: list[StageEvent] = []

    def hear(record: bytes) -> None:
        event = told(record, {"blk_subflow_watch": "blk_subflow", "blk_subflow": "blk_subflow"})
        assert event is not None
        heard.append(event)

    with pybpf.RingBuffer(runner.shared.cores()["emptcp_events"](), hear) as ring:
        ring.poll(0)
    return heard


def test_it_is_forgotten_with_the_subflow(policy: Callable[..., Any]) -> None:
    runner = policy("blk_subflow()")
    for flags in ("FA", "R", "RA"):
        runner.run(build(options=[FORMS[0]]))
        assert len(stored(runner)) == 1
        runner.run(build(flags=flags))
        assert stored(runner) == []


def test_a_connection_on_the_same_ports_begins_without(policy: Callable[..., Any]) -> None:
    runner = policy("blk_subflow()")
    runner.run(build(options=[FORMS[0]]))
    runner.run(build(flags="S", options=[MpCapable()]))
    assert stored(runner) == []


def test_an_id_that_stands_for_another_address_replaces_it(policy: Callable[..., Any]) -> None:
    runner = policy("blk_subflow()")
    later = AddAddress(3, ip_address("10.9.0.8"), hmac=HMAC)
    runner.run(build(options=[FORMS[0]]))
    runner.run(build(options=[later]))
    assert stored(runner) == [later.encode()]


def test_an_id_with_another_address_is_forgotten_also_where_no_policy_selects_it(
    policy: Callable[..., Any],
) -> None:
    runner = policy("blk_subflow()", when="subflow(sport=40000) and not packet_type('dss')")
    runner.run(build(options=[FORMS[0]]))
    runner.run(build(options=[ACK, AddAddress(3, ip_address("10.9.0.8"), hmac=HMAC)]))
    assert stored(runner) == []


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_a_join_is_held_until_it_is_released(policy: Callable[..., Any], hook: str) -> None:
    runner = policy("blk_subflow()", hook=hook)
    for shape in SHAPES:
        syn = build(**shape, flags="S", options=[JOIN])
        for _ in range(3):
            # What is dropped as it leaves TCP would learn of, and give up: it is sent nowhere instead.
            assert runner.run(syn).verdict == ("drop" if hook == "ingress" else "redirect")
        ((key, value),) = runner.map("held_joins").items()
        assert struct.unpack("=II", value) == (0, 3)
        runner.map("held_joins").update(key, struct.pack("=II", 1, 3))
        result = runner.run(syn)
        assert (result.verdict, result.data) == ("pass", syn)
        anew(runner, **shape)


def test_a_refused_join_names_a_token_that_nobody_knows(policy: Callable[..., Any]) -> None:
    out = decode(policy("blk_subflow(refuse=true)").run(build(flags="S", options=[JOIN])).data)
    assert out.valid
    assert options(out) == [MpJoinSyn(token=5 ^ 0xFFFFFFFF, nonce=6, address_id=1)]


def test_each_half_can_be_left_out(policy: Callable[..., Any]) -> None:
    announcement, syn = build(options=[FORMS[0]]), build(flags="S", options=[JOIN])
    joins, addresses = policy("blk_subflow(addresses=false)"), policy("blk_subflow(joins=false)")
    assert [one.run(announcement).verdict for one in (joins, addresses)] == ["pass", "drop"]
    assert [one.run(syn).verdict for one in (joins, addresses)] == ["drop", "pass"]


@pytest.fixture
def runner(policy: Callable[..., Any]) -> Any:
    return policy("blk_subflow()")


MOVES = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 4), st.sampled_from(["10.9.0.1", "10.9.0.2"])),
    st.tuples(st.just("echo"), st.integers(1, 4), st.just("10.9.0.1")),
    st.tuples(st.just("remove"), st.integers(1, 4), st.just("")),
    st.tuples(st.just("end"), st.just(0), st.just("")),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(MOVES, max_size=12), beside=st.booleans())
def test_what_is_stored_agrees_with_a_plain_model(
    runner: Any, moves: list[tuple[str, int, str]], beside: bool
) -> None:
    anew(runner)
    model: dict[int, bytes] = {}
    for what, number, address in moves:
        more = [ACK] if beside else []
        if what == "add":
            option = AddAddress(number, ip_address(address), hmac=HMAC)
            model[number] = option.encode()
            runner.run(build(options=[*more, option]))
        elif what == "echo":
            packet = build(options=[*more, AddAddress(number, ip_address(address), echo=True)])
            assert runner.run(packet).data == packet
        elif what == "remove":
            model.pop(number, None)
            runner.run(build(options=[*more, RemoveAddress((number,))]))
        else:
            model.clear()
            anew(runner)
        assert sorted(stored(runner)) == sorted(model.values())
