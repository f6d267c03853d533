# SPDX-License-Identifier: Apache-2.0
"""The chain context in XDP metadata and in skb->cb: nothing of it is left when the packet goes on."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from emptcp.chain.dryrun import Runner
from emptcp.chain.plan import BoundPolicy, FragmentRef, Stage
from emptcp.errors import EmptcpError
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss

pytestmark = pytest.mark.kernel

SOURCE = """
#include <emptcp/actor.h>
struct answer { __u32 value; };
EMPTCP_ACTOR(answers, pkt, struct answer, param)
{
	pkt->parsed->redirect = 1;
	return param->value;
}

/* How much metadata, or what of skb->cb, a stage finds: where the context travels. */
struct looks { __u32 nothing; };
EMPTCP_ACTOR(looks, pkt, struct looks, param)
{
	if (pkt->backend == EMPTCP_XDP)
		return emptcp_skip(pkt, ((struct xdp_md *)pkt->ctx)->data - ((struct xdp_md *)pkt->ctx)->data_meta);
	return emptcp_skip(pkt, ((struct __sk_buff *)pkt->ctx)->cb[0]);
}
char _license[] SEC("license") = "Dual BSD/GPL";
"""

PACKET = build(options=[Dss(data_ack=7)])
NEXT, RETURN, ACCEPT, DROP, REDIRECT = range(5)


@pytest.fixture(scope="module")
def compiled(compile_bpf: Callable[[str, str], Path]) -> Path:
    return compile_bpf(SOURCE, "carriers")


def actor(path: Path, number: int, verdict: int, name: str = "answers") -> Stage:
    ref = FragmentRef("test", str(path), name)
    return Stage(f"a{number}", "actor", name, f"{name}()", ref, struct.pack("<I", verdict))


def policy(path: Path, *verdicts: int) -> BoundPolicy:
    return BoundPolicy("t", "p", None, (), tuple(actor(path, n, one) for n, one in enumerate(verdicts)))


CASES = [
    (NEXT,) * 5,
    (NEXT, NEXT, RETURN, NEXT),
    (NEXT, ACCEPT, NEXT, NEXT),
    (NEXT, DROP, NEXT),
    (NEXT, NEXT, REDIRECT, NEXT),
]


@pytest.mark.parametrize("verdicts", CASES, ids=str)
def test_xdp_metadata_is_as_it_was_whatever_the_verdict(compiled: Path, verdicts: tuple[int, ...]) -> None:
    with Runner([policy(compiled, *verdicts)], engine="tail-metadata") as runner:
        # struct xdp_md: data and data_end tell how much metadata is left in front of the packet.
        out = runner.loaded.program.test_run(PACKET, ctx=struct.pack("<6I", 0, len(PACKET), 0, 0, 0, 0))
    data, _, meta = struct.unpack_from("<3I", out.ctx)
    assert data == meta
    assert out.data == PACKET


@pytest.mark.parametrize("verdicts", CASES, ids=str)
def test_skb_cb_is_as_it_was_whatever_the_verdict(compiled: Path, verdicts: tuple[int, ...]) -> None:
    ctx = bytearray(192)
    struct.pack_into("<5I", ctx, 48, 0xDEADBEEF, 2, 3, 4, 5)
    with Runner([policy(compiled, *verdicts)], "egress", "tc", engine="tail-metadata") as runner:
        out = runner.loaded.program.test_run(PACKET, ctx=bytes(ctx))
    assert struct.unpack_from("<5I", out.ctx, 48) == (0xDEADBEEF, 2, 3, 4, 5)
    assert out.data == PACKET


def test_the_entries_of_the_stages_to_come_travel_in_front_of_the_packet(compiled: Path) -> None:
    stages = tuple(actor(compiled, n, 0, "looks") for n in range(3))
    with Runner([BoundPolicy("t", "p", None, (), stages)], engine="tail-metadata") as runner:
        counts = runner.run(PACKET).counts
    # Reasons by number: each stage finds its own entry and those that follow, four bytes each.
    names = [next(iter(counts[f"t/p/a{n}"].reasons)) for n in range(3)]
    from emptcp.chain import reasons

    assert names == [reasons.name(4 * left) for left in (3, 2, 1)]


def test_a_packet_with_metadata_of_somebody_else_keeps_it_and_goes_on(compiled: Path) -> None:
    with Runner([policy(compiled, NEXT, DROP)], engine="tail-metadata") as runner:
        ctx = struct.pack("<6I", 8, 8 + len(PACKET), 0, 0, 0, 0)
        out = runner.loaded.program.test_run(b"theirs!!" + PACKET, ctx=ctx)
        assert out.retval == 1
    with Runner([policy(compiled, NEXT, NEXT)], engine="tail-metadata") as runner:
        out = runner.loaded.program.test_run(b"theirs!!" + PACKET, ctx=ctx)
        data, _, meta = struct.unpack_from("<3I", out.ctx)
        assert (out.retval, data - meta, out.data) == (2, 8, b"theirs!!" + PACKET)


def test_a_context_that_has_no_room_is_refused(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", "long_metadata")
    long = policy(compiled, *[NEXT] * 8)
    with pytest.raises(EmptcpError, match="9 entries takes 36 bytes, and this kernel has room for 32"):
        Runner([long], engine="tail-metadata")
    with Runner([long], "egress", "tc", engine="tail-metadata") as runner:
        assert runner.run(PACKET).verdict == "pass"
