# SPDX-License-Identifier: Apache-2.0
"""The TCP header as the stages of a packet see it, and as it leaves; some are made with older headers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.chain.dryrun import Runner
from emptcp.chain.plan import BoundPolicy, FragmentRef, Stage
from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss
from emptcp.packet.tcp import Timestamps
from emptcp.policy import model

pytestmark = pytest.mark.kernel

FIELDS = """
struct fields { __u32 window; __u32 seq; }; /* what they grow by, or are to be */
"""

SOURCE = f"""
#include <emptcp/actor.h>
#include <emptcp/selector.h>
{FIELDS}

EMPTCP_ACTOR(grow, pkt, struct fields, param)
{{
	__be16 window = bpf_htons(bpf_ntohs(emptcp_tcp(pkt)->window) + param->window);
	__be32 seq = bpf_htonl(bpf_ntohl(emptcp_tcp(pkt)->seq) + param->seq);

	if (param->window)
		emptcp_rewrite(pkt, pkt->parsed->l4 + 14, &window, sizeof(window));
	if (param->seq)
		emptcp_rewrite(pkt, pkt->parsed->l4 + 4, &seq, sizeof(seq));
	return EMPTCP_NEXT;
}}

EMPTCP_SELECTOR(has, pkt, struct fields, param)
{{
	const struct tcphdr *tcp = emptcp_tcp(pkt);

	return bpf_ntohs(tcp->window) == param->window && bpf_ntohl(tcp->seq) == param->seq;
}}

char _license[] SEC("license") = "Dual BSD/GPL";
"""

OLDER = f"""
#include <emptcp/actor.h>
#include <emptcp/selector.h>
#undef EMPTCP_HEADER_VERSION
#define EMPTCP_HEADER_VERSION 2
{FIELDS}

static __always_inline struct tcphdr *header(const struct emptcp_handle *pkt)
{{
	return emptcp_parsed_bytes(pkt, pkt->parsed->l4, sizeof(struct tcphdr));
}}

static __always_inline void put(const struct emptcp_handle *pkt, __u32 from, const void *bytes, __u32 len)
{{
	__u8 *tcp = (void *)header(pkt);
	const __u16 *to = bytes;

	if (!tcp)
		return;
	for (__u32 i = 0; i < len / 2; i++)
		emptcp_tcp_check_add(pkt, emptcp_word_change(((__u16 *)(tcp + from))[i], to[i]));
	if (pkt->backend == EMPTCP_TC)
		bpf_skb_store_bytes(pkt->ctx, pkt->parsed->l4 + from, bytes, len, 0);
	else
		__builtin_memcpy(tcp + from, bytes, len);
}}

EMPTCP_ACTOR(grow, pkt, struct fields, param)
{{
	const struct tcphdr *tcp = header(pkt);
	__be16 window;
	__be32 seq;

	if (!tcp)
		return EMPTCP_NEXT;
	window = bpf_htons(bpf_ntohs(tcp->window) + param->window);
	seq = bpf_htonl(bpf_ntohl(tcp->seq) + param->seq);
	if (param->window)
		put(pkt, 14, &window, sizeof(window));
	if (param->seq)
		put(pkt, 4, &seq, sizeof(seq));
	return EMPTCP_NEXT;
}}

EMPTCP_SELECTOR(has, pkt, struct fields, param)
{{
	const struct tcphdr *tcp = header(pkt);

	return tcp && bpf_ntohs(tcp->window) == param->window && bpf_ntohl(tcp->seq) == param->seq;
}}

char _license[] SEC("license") = "Dual BSD/GPL";
"""
"""The same as with headers of version 2: a stage looks for the header in the packet, and writes it there."""

WINDOW, SEQ = 500, 0xFFFFFF00
USUAL = build(window=WINDOW, seq=SEQ, options=[b"\1\1", Timestamps(1, 2), Dss(data_ack=7)])
OTHER = build(family=6, window=WINDOW, seq=SEQ, options=[Dss(data_ack=7), b"\1\1"], payload=b"odd")

Change = tuple[bool, int, int]
CHANGES = st.tuples(st.booleans(), st.sampled_from([0, 1, 0xFFFF, 700]), st.sampled_from([0, 1, 0x10000]))


@pytest.fixture(scope="module")
def objects(compile_bpf: Callable[[str, str], Path]) -> tuple[Path, Path]:
    """Objects with the same stages: of today's headers, and of older ones."""
    return compile_bpf(SOURCE, "newer"), compile_bpf(OLDER, "older")


def stage(objects: tuple[Path, Path], kind: str, name: str, older: bool, window: int, seq: int) -> Stage:
    ref = FragmentRef("older" if older else "newer", str(objects[older]), name)
    label = f"{name}{window}_{seq}_{older}"
    return Stage(label, kind, name, label, ref, struct.pack("<II", window, seq))


def policies(objects: tuple[Path, Path], changes: list[Change], asking: bool) -> list[BoundPolicy]:
    """Return a policy for each change, that asks for what those before have made of the header."""
    made, window, seq = [], WINDOW, SEQ
    for number, (older, more, further) in enumerate(changes):
        asked = stage(objects, "selector", "has", older is not asking, window, seq)
        act = stage(objects, "actor", "grow", older, more, further)
        when = model.Select(model.StageSpec("selector", asked.id))
        made.append(BoundPolicy("t", f"p{number}", when, (asked,), (act,)))
        window, seq = (window + more) % 2**16, (seq + further) % 2**32
    return made


@pytest.mark.parametrize("engine", ["fused", "tail"])
@pytest.mark.parametrize("backend", ["xdp", "tc"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=st.lists(CHANGES, min_size=1, max_size=6), asking=st.booleans())
def test_each_stage_sees_what_those_before_it_made_of_the_header(
    objects: tuple[Path, Path], backend: str, engine: str, changes: list[Change], asking: bool
) -> None:
    made = policies(objects, changes, asking)
    with Runner(made, "ingress", backend, engine=engine) as runner:
        for packet in (USUAL, OTHER):
            got = runner.run(packet)
            assert got.matched == tuple(one.name for one in made)
            seen, before = decode(got.data), decode(packet)
            assert seen.tcp is not None
            assert before.tcp is not None
            assert seen.tcp.window == (WINDOW + sum(one[1] for one in changes)) % 2**16
            assert seen.tcp.seq == (SEQ + sum(one[2] for one in changes)) % 2**32
            assert seen.tcp_checksum_right
            assert without_changes(got.data, before.tcp.offset) == without_changes(packet, before.tcp.offset)


def without_changes(packet: bytes, tcp: int) -> bytes:
    """Return all of a packet but its sequence number, window and checksum."""
    return packet[: tcp + 4] + packet[tcp + 8 : tcp + 14] + packet[tcp + 18 :]
