# SPDX-License-Identifier: Apache-2.0
"""The first glance lets packets go sooner and changes nothing else: same verdict, bytes and counters."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.chain import program
from emptcp.chain.dryrun import Runner
from emptcp.chain.plan import BoundPolicy, FragmentRef, Stage
from emptcp.packet.build import build
from emptcp.packet.layers import Vlan
from emptcp.packet.mptcp import Dss, MpPrio
from emptcp.packet.tcp import Nop, Option, Timestamps

pytestmark = pytest.mark.kernel

THOROUGH = """
#include <emptcp/parse.h>

static __always_inline struct emptcp_pkt *begin(void *ctx, __u32 how, __u32 netns, int backend)
{
	const struct emptcp_parse_config config = emptcp_parse_how(how, netns);
	struct emptcp_pkt *parsed = emptcp_parsed();

	if (!parsed)
		return NULL;
	if (emptcp_parse_unusual(ctx, parsed, &config, backend) != EMPTCP_PARSE_TCP)
		return parsed;
	return config.needs & EMPTCP_NEED_PLAIN || parsed->flags & EMPTCP_PKT_MPTCP ? parsed : NULL;
}

SEC("emptcp.xdp/core_begin")
struct emptcp_pkt *core_begin__xdp(struct xdp_md *ctx, __u32 how, __u32 netns)
{
	return begin(ctx, how, netns, EMPTCP_XDP);
}

SEC("emptcp.tc/core_begin")
struct emptcp_pkt *core_begin__tc(struct __sk_buff *ctx, __u32 how, __u32 netns)
{
	return begin(ctx, how, netns, EMPTCP_TC);
}

char _license[] SEC("license") = "Dual BSD/GPL";
"""
"""Core's first fragment without a glance."""

SOURCE = """
#include <emptcp/actor.h>

struct seen { __u64 packets; };

EMPTCP_ACTOR(marks, pkt, void, param) { return EMPTCP_DROP; }

EMPTCP_ACTOR(asks, pkt, void, param) { return pkt->parsed->payload_len ? EMPTCP_DROP : EMPTCP_NEXT; }

EMPTCP_ACTOR_STATE(counts, pkt, void, param, struct seen, state)
{
	state->packets++;
	return EMPTCP_NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
"""

PROGRAMS = [("xdp", "marks"), ("tc", "marks"), ("xdp", "asks"), ("tc", "asks"), ("tc", "counts")]
"""Back-end and actor: `marks` asks for nothing of the packet, and is given the lean parser."""

Pair = tuple[Runner, Runner]


def policy(path: Path, name: str) -> BoundPolicy:
    fragment = FragmentRef("test", str(path), name, 8 if name == "counts" else 0)
    return BoundPolicy("t", "p", None, (), (Stage(name, "actor", name, f"{name}()", fragment, b""),))


@pytest.fixture(scope="module", params=PROGRAMS, ids="-".join)
def runners(request: pytest.FixtureRequest, compile_bpf: Callable[[str, str], Path]) -> Iterator[Pair]:
    """Return the same program with and without the glance."""
    backend, actor = request.param
    policies = [policy(compile_bpf(SOURCE, "glance"), actor)]
    with ExitStack() as stack:
        usual = stack.enter_context(Runner(policies, backend=backend))
        with pytest.MonkeyPatch.context() as patch:
            thorough = FragmentRef("core", str(compile_bpf(THOROUGH, "thorough")), "core_begin")
            for begin in ("CORE_BEGIN", "CORE_BEGIN_LEAN"):
                patch.setattr(program, begin, thorough)
            slow = stack.enter_context(Runner(policies, backend=backend))
        assert usual.loaded.program.info.tag != slow.loaded.program.info.tag
        yield usual, slow


def same(runners: Pair, packet: bytes) -> None:
    usual, slow = (runner.run(packet) for runner in runners)
    assert dataclasses.replace(usual, duration_ns=0) == dataclasses.replace(slow, duration_ns=0)


OPTIONS: list[tuple[Option | bytes, ...]] = [
    (),
    (Nop(), Nop(), Timestamps(1, 2)),
    (Timestamps(1, 2), Nop(), Nop()),
    (Nop(), Nop(), Timestamps(1, 2), Dss(data_ack=7)),
    (Dss(data_ack=7),),
    (MpPrio(backup=True), Nop()),
    (Nop(), Nop(), b"\x08\x0a" + bytes(6)),
    (b"\x1e\x03\x50", b"\x1e\x03\x51", bytes(6)),
]


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Return TCP of every shape, whole and broken."""
    family = draw(st.sampled_from([4, 4, 4, 6]))
    fragment = draw(st.sampled_from([None, None, None, (0, True), (3, False)])) if family == 4 else None
    packet = build(
        family=family,
        vlan=draw(st.sampled_from([(), (), (), (7,), (0,), (1, 2, 3)])),
        flags=draw(st.sampled_from(["A", "PA", "S", "SA", "R", "FA"])),
        options=draw(st.sampled_from(OPTIONS)),
        payload=bytes(draw(st.sampled_from([0, 1, 200]))),
        fragment=fragment,
        ip_options=draw(st.sampled_from([b"", b"", b"", bytes(4)])) if family == 4 else b"",
        data_offset=draw(st.sampled_from([None, None, None, 0, 4, 5, 8, 15])),
        ip_length=draw(st.sampled_from([None, None, None, 0, 20, 39, 51, 52, 1500])),
        frame_length=draw(st.sampled_from([0, 60])),
    )
    return packet[: draw(st.sampled_from([None, None, None, 54, 66, 90]))]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packet=packets())
def test_tcp_of_every_shape_is_treated_alike(runners: Pair, packet: bytes) -> None:
    same(runners, packet)


@pytest.mark.parametrize("protocol", [0, 1, 6, 17, 43, 44, 58, 60, 132])
@pytest.mark.parametrize("family", [4, 6])
def test_every_protocol_is_treated_alike(runners: Pair, family: int, protocol: int) -> None:
    same(
        runners,
        build(family=family, protocol=protocol, transport=struct.pack("!HHHH", 1, 2, 8, 0) + bytes(60)),
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("ethertype", [0x0806, 0x8847, 0x8100, 0x88A8, 0x0800, 0x86DD])
@pytest.mark.parametrize("vlan", [(), (5,), (Vlan(5, tpid=0x88A8), 6)])
def test_every_ethertype_is_treated_alike(
    runners: Pair, ethertype: int, vlan: tuple[Vlan | int, ...]
) -> None:
    same(runners, build(ethertype=ethertype, vlan=vlan, options=OPTIONS[3]))


@pytest.mark.parametrize("length", range(34, 100, 3))
def test_a_packet_that_ends_anywhere_is_treated_alike(runners: Pair, length: int) -> None:
    same(runners, build(options=OPTIONS[3])[:length])


def was_parsed(runner: Runner) -> bool:
    """Return whether the parser of a new program has written anything."""
    rows = runner.shared.packet("ingress", runner.backend, 0).lookup_percpu(bytes(4))
    return any(map(any, rows or []))


@pytest.mark.parametrize("backend", ["xdp", "tc"])
@pytest.mark.parametrize(
    ("actor", "options", "protocol", "parses"),
    [
        ("marks", OPTIONS[0], 6, False),
        ("marks", OPTIONS[1], 6, False),
        ("marks", OPTIONS[2], 6, True),
        ("marks", OPTIONS[3], 6, True),
        ("marks", OPTIONS[0], 17, False),
        ("counts", OPTIONS[0], 6, True),
        ("counts", OPTIONS[0], 17, False),
    ],
)
def test_only_what_may_matter_is_parsed(
    compile_bpf: Callable[[str, str], Path],
    backend: str,
    actor: str,
    options: tuple[Option | bytes, ...],
    protocol: int,
    parses: bool,
) -> None:
    with Runner([policy(compile_bpf(SOURCE, "glance"), actor)], backend=backend) as runner:
        runner.run(build(options=options, protocol=protocol, payload=bytes(100)))
        assert was_parsed(runner) is parses
