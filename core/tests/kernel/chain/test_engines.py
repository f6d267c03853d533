# SPDX-License-Identifier: Apache-2.0
"""Both engines against a plain Python model: same verdict, same matches, same counters."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from emptcp.chain import context, fused, joining, layout, reasons
from emptcp.chain.dryrun import Runner
from emptcp.chain.plan import BoundPolicy, FragmentRef, Stage, plan
from emptcp.errors import EmptcpError
from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss, MpCapable
from emptcp.packet.tcp import WindowScale
from emptcp.policy import model
from emptcp.pybpf import features

pytestmark = pytest.mark.kernel

SOURCE = """
#include <emptcp/actor.h>
#include <emptcp/selector.h>

struct answer { __u64 value; __u64 reason; __u64 pad; };
struct flag { __u32 value; };
struct seen { __u64 packets; };

EMPTCP_SELECTOR(is_set, pkt, struct flag, param) { return param->value; }

EMPTCP_ACTOR(answers, pkt, struct answer, param)
{
	pkt->parsed->scratch[0]++;
	if (param->reason)
		return emptcp_skip(pkt, param->reason);
	return param->value;
}

EMPTCP_ACTOR_STATE(counts, pkt, void, param, struct seen, state)
{
	state->packets++;
	return EMPTCP_NEXT;
}

EMPTCP_SELECTOR_STATE(knows, pkt, struct flag, param, struct seen, state)
{
	if (param->value > 1)
		pkt->parsed->reason = param->value;
	return param->value == 1;
}

struct cap_window { __u32 bytes; };

EMPTCP_ACTOR(cap_window, pkt, struct cap_window, param)
{
	const struct tcphdr *tcp = emptcp_tcp(pkt);
	if (tcp->syn)
		return EMPTCP_NEXT;
	emptcp_cap_window(pkt, tcp, param->bytes);
	return EMPTCP_NEXT;
}

EMPTCP_ACTOR(deep, pkt, void, param)
{
	volatile __u8 room[300];

	for (int i = 0; i < 300; i++)
		room[i] = i;
	return room[7] ? EMPTCP_NEXT : EMPTCP_DROP;
}

EMPTCP_ACTOR(as_deep_as_allowed, pkt, void, param)
{
	volatile __u64 room[32];

	for (int i = 0; i < 32; i++)
		room[i] = i;
	return room[7] ? EMPTCP_NEXT : EMPTCP_DROP;
}

EMPTCP_ACTOR(patient, pkt, void, param)
{
	volatile __u64 sum = 0;

	for (__u32 i = 0; i < 3000000; i++)
		sum += i;
	return sum ? EMPTCP_NEXT : EMPTCP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
"""

PACKET = build(src="10.0.0.1", dst="10.0.0.2", options=[Dss(data_ack=7)])
LENGTH = len(PACKET) - 14
Parameters = Callable[[Runner], AbstractContextManager[memoryview]]
NEXT, RETURN, ACCEPT, DROP = range(4)
# 32 bytes in front of a packet are eight entries: too few for these policies.
ENGINES = ["fused", "tail", *(["tail-metadata"] if features.has("long_metadata") else [])]


@pytest.fixture(scope="module")
def compiled(compile_bpf: Callable[[str, str], Path]) -> Path:
    return compile_bpf(SOURCE, "chain")


def selector(path: Path, name: str, matches: bool) -> Stage:
    ref = FragmentRef("test", str(path), "is_set")
    return Stage(name, "selector", "is_set", "is_set()", ref, struct.pack("<I", matches))


def actor(path: Path, name: str, verdict: int, reason: int = 0) -> Stage:
    ref = FragmentRef("test", str(path), "answers")
    return Stage(name, "actor", "answers", "answers()", ref, struct.pack("<QQQ", verdict, reason, 0))


def leaf(name: str) -> model.Select:
    return model.Select(model.StageSpec("selector", name))


@dataclasses.dataclass
class Modelled:
    """A policy as the Python model runs it: the truth of each selector, the answer of each actor."""

    when: model.Expression | None
    truth: dict[str, bool]
    actors: list[tuple[int, int]]


@st.composite
def modelled(draw: st.DrawFn) -> Modelled:
    count = draw(st.integers(0, 5))
    names = [f"s{n}" for n in range(count)]
    expression: model.Expression | None = None
    for name in names:
        node: model.Expression = leaf(name)
        if draw(st.booleans()):
            node = model.Not(node)
        joiner = draw(st.sampled_from([model.And, model.Or]))
        expression = node if expression is None else joiner((expression, node))
        if draw(st.integers(0, 3)) == 0:
            expression = model.Not(expression)
    answer = st.tuples(
        st.sampled_from([NEXT, NEXT, NEXT, RETURN, ACCEPT, DROP, 9]), st.sampled_from([0, 0, 11, 23])
    )
    actors = draw(st.lists(answer, min_size=1, max_size=4))
    return Modelled(expression, {name: draw(st.booleans()) for name in names}, actors)


def matches(expression: model.Expression | None, truth: dict[str, bool], asked: list[str]) -> bool:
    if isinstance(expression, model.And):
        return all(matches(child, truth, asked) for child in expression.children)
    if isinstance(expression, model.Or):
        return any(matches(child, truth, asked) for child in expression.children)
    if isinstance(expression, model.Not):
        return not matches(expression.child, truth, asked)
    if expression is None:
        return True
    assert isinstance(expression, model.Select)
    asked.append(expression.stage.name)
    return truth[expression.stage.name]


def expected(policies: list[Modelled]) -> tuple[str, list[str], dict[str, tuple[int, str | None]]]:
    """Return the verdict, the policies that matched, and verdict and reason per stage that ran."""
    matched: list[str] = []
    ran: dict[str, tuple[int, str | None]] = {}
    for number, policy in enumerate(policies):
        asked: list[str] = []
        hit = matches(policy.when, policy.truth, asked)
        ran |= {f"t/p{number}/{name}": (NEXT, None) for name in asked}
        if not hit:
            continue
        matched.append(f"p{number}")
        for place, (verdict, reason) in enumerate(policy.actors):
            said = NEXT if reason or verdict > DROP + 1 else verdict
            ran[f"t/p{number}/a{place}"] = (said, reasons.name(reason) if reason else None)
            if said == RETURN:
                break
            if said in (ACCEPT, DROP):
                return ("drop" if said == DROP else "pass"), matched, ran
    return "pass", matched, ran


def bound(path: Path, number: int, policy: Modelled) -> BoundPolicy:
    return BoundPolicy(
        table="t",
        name=f"p{number}",
        when=policy.when,
        selectors=tuple(selector(path, name, truth) for name, truth in policy.truth.items()),
        actors=tuple(actor(path, f"a{n}", *answer) for n, answer in enumerate(policy.actors)),
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("hook", "backend"), [("ingress", "xdp"), ("ingress", "tc"), ("egress", "tc")])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policies=st.lists(modelled(), min_size=1, max_size=6))
def test_policies_do_what_the_model_does(
    compiled: Path, hook: str, backend: str, engine: str, policies: list[Modelled]
) -> None:
    made = [bound(compiled, n, p) for n, p in enumerate(policies)]
    assume(engine == "fused" or context.depth(plan(hook, made)) <= context.MOST_CALLS)
    verdict, matched, ran = expected(policies)
    with Runner(made, hook, backend, engine=engine) as runner:
        got = runner.run(PACKET)
    assert (got.verdict, list(got.matched)) == (verdict, matched)
    assert got.data == PACKET
    for name, count in got.counts.items():
        if not name:
            assert (count.packets, count.bytes) == (1, LENGTH)
            continue
        said, reason = ran.get(name, (NEXT, None))
        assert count.packets == (name in ran), name
        assert (count.returns, count.accepts, count.drops) == tuple(
            int(said == v) for v in (RETURN, ACCEPT, DROP)
        )
        assert count.reasons == ({reason: 1} if reason else {})
        assert count.skipped == (reason is not None)


def test_a_parameter_changes_what_the_running_program_does_and_reloads_nothing(
    parameters: Parameters, compiled: Path
) -> None:
    with Runner([BoundPolicy("t", "p", None, (), (actor(compiled, "a", DROP),))]) as runner:
        number = runner.loaded.program.id
        assert runner.run(PACKET).verdict == "drop"
        slot = runner.loaded.description.stages()["t/p/a"].slot
        assert slot is not None
        assert slot.flips
        for verdict, word in ((NEXT, "pass"), (DROP, "drop"), (ACCEPT, "pass"), (DROP, "drop")):
            with parameters(runner) as words:
                layout.change(words, slot, struct.pack("<QQQ", verdict, 0, 0))
            assert runner.run(PACKET).verdict == word
        assert runner.loaded.program.id == number


def many(path: Path, count: int) -> Iterator[BoundPolicy]:
    for number in range(count):
        yield BoundPolicy(
            "t",
            f"p{number}",
            leaf("s"),
            (selector(path, "s", number == count - 1),),
            (*(actor(path, f"a{n}", NEXT) for n in range(5)), actor(path, "last", DROP)),
        )


@pytest.mark.parametrize("backend", ["xdp", "tc"])
def test_four_hundred_policies_are_one_program_and_the_last_one_still_acts(
    compiled: Path, backend: str
) -> None:
    with Runner(list(many(compiled, 400)), "ingress", backend) as runner:
        assert runner.loaded.program.info.instructions > 2 * 32767
        got = runner.run(PACKET)
    assert (got.verdict, got.matched) == ("drop", ("p399",))
    assert got.counts["t/p399/last"].drops == 1
    assert got.counts["t/p0/s"].packets == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_state_is_kept_per_flow_and_begins_anew_with_a_syn(compiled: Path, engine: str) -> None:
    ref = FragmentRef("test", str(compiled), "counts", 8)
    policy = BoundPolicy("t", "p", None, (), (Stage("c", "actor", "counts", "counts()", ref, b""),))
    back = build(src="10.0.0.2", dst="10.0.0.1", sport=5001, dport=40000, options=[Dss(data_ack=7)])
    with Runner([policy], engine=engine) as runner:
        for packet in (PACKET, back, PACKET):
            runner.run(packet)
        assert _packets(runner) == [3]
        runner.run(build(src="10.0.0.1", dst="10.0.0.2", flags="S", options=[Dss(data_ack=7)]))
        assert _packets(runner) == [1]


@pytest.mark.parametrize(
    ("answer", "reason", "matched"), [(0, None, ()), (1, None, ("p",)), (20, "unknown_state", ())]
)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_selector_that_keeps_state_says_why_it_can_not_tell(
    compiled: Path, engine: str, answer: int, reason: str | None, matched: tuple[str, ...]
) -> None:
    ref = FragmentRef("test", str(compiled), "knows", 8)
    stage = Stage("s", "selector", "knows", "knows()", ref, struct.pack("<I", answer))
    follower = BoundPolicy("t", "q", None, (), (actor(compiled, "a", NEXT),))
    policies = [BoundPolicy("t", "p", leaf("s"), (stage,), (actor(compiled, "a", NEXT),)), follower]
    with Runner(policies, engine=engine) as runner:
        for _ in range(2):
            got = runner.run(PACKET)
            assert (got.verdict, got.reason, got.matched) == ("pass", reason, (*matched, "q"))
            counts = got.counts["t/p/s"]
            assert (counts.packets, dict(counts.reasons)) == (1, {reason: 1} if reason else {})
            assert not got.counts["t/q/a"].reasons


def _packets(runner: Runner) -> list[int]:
    return [struct.unpack_from("<Q", value, 64)[0] for _, value in runner.shared.flows().items()]


def test_a_fragment_that_needs_too_much_stack_is_refused_with_a_sentence(compiled: Path) -> None:
    ref = FragmentRef("test", str(compiled), "deep")
    policy = BoundPolicy("t", "p", None, (), (Stage("d", "actor", "deep", "deep()", ref, b""),))
    with pytest.raises(EmptcpError, match="fragment 'deep' of plugin 'test' uses 304 bytes of stack"):
        Runner([policy])


@pytest.mark.parametrize("backend", ["xdp", "tc"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_stage_that_keeps_no_state_can_read_what_core_knows_of_the_flow(
    compiled: Path, engine: str, backend: str
) -> None:
    ref = FragmentRef("test", str(compiled), "cap_window", flow=True)
    stage = Stage("c", "actor", "cap_window", "cap_window()", ref, struct.pack("<I", 12800))
    opening = build(src="10.0.0.1", dst="10.0.0.2", flags="S", options=[WindowScale(7), MpCapable()])
    with Runner([BoundPolicy("t", "p", None, (), (stage,))], "egress", backend, engine=engine) as runner:
        assert runner.run(PACKET).reason == "unknown_state"
        assert runner.run(opening).data == opening
        capped = decode(runner.run(PACKET).data)
    assert capped.tcp is not None
    assert (capped.tcp.window, capped.tcp_checksum_right) == (100, True)


@pytest.mark.parametrize("engine", ENGINES)
def test_packets_that_are_not_mptcp_pass_every_policy_by(compiled: Path, engine: str) -> None:
    with Runner([BoundPolicy("t", "p", None, (), (actor(compiled, "a", DROP),))], engine=engine) as runner:
        for packet in (build(src="10.0.0.1", dst="10.0.0.2"), build(protocol=17, transport=bytes(8))):
            got = runner.run(packet)
            assert (got.verdict, got.matched, got.counts[""].packets) == ("pass", (), 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_policy_that_asks_for_plain_tcp_gets_it_and_its_neighbour_does_not(
    compiled: Path, engine: str
) -> None:
    asks = dataclasses.replace(selector(compiled, "s", True), plain_tcp=True)
    policies = [
        BoundPolicy("t", "mptcp", None, (), (actor(compiled, "a", NEXT),)),
        BoundPolicy("t", "plain", leaf("s"), (asks,), (actor(compiled, "a", NEXT),)),
    ]
    with Runner(policies, engine=engine) as runner:
        assert runner.run(build(src="10.0.0.1", dst="10.0.0.2")).matched == ("plain",)
        assert runner.run(PACKET).matched == ("mptcp", "plain")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_broken_packet_is_left_alone_and_counted_by_reason(compiled: Path, engine: str) -> None:
    with Runner([BoundPolicy("t", "p", None, (), (actor(compiled, "a", DROP),))], engine=engine) as runner:
        got = runner.run(build(src="10.0.0.1", dst="10.0.0.2", data_offset=4))
    assert (got.verdict, got.reason, got.matched) == ("pass", "bad_header", ())


def test_a_chain_deeper_than_the_kernels_tail_calls_is_refused_by_tail_and_run_by_fused(
    compiled: Path,
) -> None:
    long = BoundPolicy("t", "p", None, (), tuple(actor(compiled, f"a{n}", NEXT) for n in range(34)))
    with Runner([long]) as runner:
        assert runner.run(PACKET).counts["t/p/a33"].packets == 1
    with pytest.raises(EmptcpError, match="34 stages at ingress, and the engine 'tail' runs at most 33"):
        Runner([long], engine="tail")
    with Runner([dataclasses.replace(long, actors=long.actors[:33])], engine="tail") as runner:
        assert runner.run(PACKET).counts["t/p/a32"].packets == 1


def test_stages_of_one_fragment_are_one_program_of_the_tail_engine_and_another_where_policies_begin(
    compiled: Path,
) -> None:
    actors = tuple(actor(compiled, f"a{n}", NEXT) for n in range(8))
    policies = [BoundPolicy("t", name, None, (), actors) for name in ("p", "q")]
    with Runner(policies, engine="tail") as runner:
        stages = runner.loaded.made.stages
        assert stages is not None
        assert len(list(stages.keys())) == stages.info.max_entries == 2
        assert runner.run(PACKET).counts["t/q/a7"].packets == 1


@st.composite
def switching(draw: st.DrawFn) -> tuple[list[Modelled], list[list[bool]]]:
    """Return policies and what is switched off, one time after another."""
    policies = draw(st.lists(modelled(), min_size=1, max_size=5))
    switches = st.lists(st.booleans(), min_size=len(policies), max_size=len(policies))
    return policies, draw(st.lists(switches, min_size=1, max_size=3))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("hook", "backend"), [("ingress", "xdp"), ("ingress", "tc"), ("egress", "tc")])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=switching())
def test_policies_that_are_switched_off_are_as_if_they_were_not_there(
    parameters: Parameters,
    compiled: Path,
    hook: str,
    backend: str,
    engine: str,
    case: tuple[list[Modelled], list[list[bool]]],
) -> None:
    policies, times = case
    made = [bound(compiled, n, p) for n, p in enumerate(policies)]
    assume(engine == "fused" or context.depth(plan(hook, made)) <= context.MOST_CALLS)
    with Runner(made, hook, backend, engine=engine) as runner:
        for off in times:
            with parameters(runner) as words:
                for record, is_off in zip(runner.loaded.description.policies, off, strict=True):
                    words[record.switch // 8] = is_off
            verdict, matched, ran = expected_without(policies, off)
            got = runner.run(PACKET)
            assert (got.verdict, list(got.matched)) == (verdict, matched)
            assert {name for name, count in got.counts.items() if count.packets and name} == set(ran)


def expected_without(
    policies: list[Modelled], off: list[bool]
) -> tuple[str, list[str], dict[str, tuple[int, str | None]]]:
    """Return what :func:`expected` does, of the policies that are on."""
    silent = Modelled(None, {}, [])
    verdict, matched, ran = expected(
        [silent if is_off else policy for policy, is_off in zip(policies, off, strict=True)]
    )
    return verdict, [name for name in matched if not off[int(name[1:])]], ran


@pytest.mark.parametrize("engine", ENGINES)
def test_a_program_begins_with_the_switches_that_it_is_given(compiled: Path, engine: str) -> None:
    policies = [
        BoundPolicy("t", name, None, (), (actor(compiled, "a", verdict),))
        for name, verdict in (("drops", DROP), ("passes", NEXT))
    ]
    with Runner(
        policies, engine=engine, off=lambda table, policy: (table, policy) == ("t", "drops")
    ) as runner:
        got = runner.run(PACKET)
    assert (got.verdict, got.matched) == ("pass", ("passes",))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_policy_behind_one_of_another_chunk_of_counters_that_is_off_counts_where_it_should(
    parameters: Parameters, compiled: Path, engine: str
) -> None:
    long = tuple(actor(compiled, f"a{n}", NEXT) for n in range(15))
    count = 17 if engine == "fused" else 2
    policies = [BoundPolicy("t", f"p{n}", None, (), long) for n in range(count)]
    with Runner(policies, engine=engine) as runner:
        for skipped in range(count):
            with parameters(runner) as words:
                for number, record in enumerate(runner.loaded.description.policies):
                    words[record.switch // 8] = number == skipped
            counts = runner.run(PACKET).counts
            for number in range(count):
                assert counts[f"t/p{number}/a14"].packets == (number != skipped)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backend", ["xdp", "tc"])
def test_a_fragment_may_use_all_of_its_stack_beside_cores(
    compiled: Path, backend: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deepest, other = (
        FragmentRef("test", str(compiled), *which) for which in (("as_deep_as_allowed",), ("counts", 8))
    )
    stages = tuple(Stage(ref.name, "actor", ref.name, ref.name, ref, b"") for ref in (deepest, other))
    policies = [BoundPolicy("t", f"p{n}", None, (), stages) for n in range(2)]
    with Runner(policies, backend=backend, engine=engine) as runner:
        assert runner.run(PACKET).matched == ("p0", "p1")
    monkeypatch.setattr(joining, "STACK_BUDGET", joining.STACK_BUDGET - 1)
    with pytest.raises(EmptcpError, match="'as_deep_as_allowed' of plugin 'test' uses 256 bytes of stack"):
        Runner(policies, backend=backend, engine=engine)


def test_more_instructions_than_the_budget_are_refused_before_the_kernel_is_asked(
    compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "INSTRUCTION_BUDGET", 1000)
    with pytest.raises(EmptcpError, match=r"make \d+ instructions, more than the 1000 allowed"):
        Runner(list(many(compiled, 20)))


def test_what_takes_the_verifier_too_long_is_refused_in_the_operators_words(compiled: Path) -> None:
    ref = FragmentRef("test", str(compiled), "patient")
    policy = BoundPolicy("t", "p", None, (), (Stage("p", "actor", "patient", "patient()", ref, b""),))
    with pytest.raises(EmptcpError, match="take the kernel's verifier more steps than it allows"):
        Runner([policy])
