# SPDX-License-Identifier: Apache-2.0
"""Named chains on both engines against a plain Python model: shared stages, goto, and actors that choose."""

from __future__ import annotations

import dataclasses
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from emptcp.chain import context, layout
from emptcp.chain.dryrun import Runner
from emptcp.chain.plan import BoundChain, BoundPolicy, FragmentRef, Stage, plan
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss
from emptcp.policy import model
from emptcp.pybpf import features

pytestmark = pytest.mark.kernel

SOURCE = """
#include <emptcp/actor.h>
#include <emptcp/selector.h>

struct flag { __u32 value; };

EMPTCP_SELECTOR(is_set, pkt, struct flag, param) { return param->value; }

/* A verdict, or 100 and a chain. */
EMPTCP_ACTOR(answers, pkt, struct flag, param)
{
	if (param->value >= 100)
		return emptcp_goto(pkt, param->value - 100);
	return param->value;
}

struct wide { __u64 chain; __u64 other; };

EMPTCP_ACTOR(by_port, pkt, struct wide, param)
{
	const struct tcphdr *tcp = emptcp_tcp(pkt);

	return emptcp_goto(pkt, tcp->source == bpf_htons(7) ? param->chain : param->other);
}

char _license[] SEC("license") = "Dual BSD/GPL";
"""

PACKET = build(src="10.0.0.1", dst="10.0.0.2", options=[Dss(data_ack=7)])
LENGTH = len(PACKET) - 14
NEXT, RETURN, ACCEPT, DROP = range(4)
CHOICE = 100
CHAINS = ("one", "two", "three")
Parameters = Callable[[Runner], AbstractContextManager[memoryview]]
# 32 bytes in front of a packet are eight entries: too few for these policies.
ENGINES = ["fused", "tail", *(["tail-metadata"] if features.has("long_metadata") else [])]


@pytest.fixture(scope="module")
def compiled(compile_bpf: Callable[[str, str], Path]) -> Path:
    return compile_bpf(SOURCE, "named_chains")


@dataclasses.dataclass
class Steps:
    """A chain as the model runs it: what each actor answers, and where it goes at its end."""

    answers: list[int]
    chosen: list[tuple[str, ...]]
    goto: str


@dataclasses.dataclass
class Modelled:
    matches: bool
    do: Steps


@st.composite
def steps(draw: st.DrawFn, later: tuple[str, ...]) -> Steps:
    goto = draw(st.sampled_from(["", *later]))
    count = draw(st.integers(0 if goto else 1, 3))
    chosen = [
        tuple(draw(st.lists(st.sampled_from(later), unique=True))) if later else () for _ in range(count)
    ]
    answer = st.sampled_from([NEXT, NEXT, RETURN, ACCEPT, DROP, 9, *(CHOICE + n for n in range(6))])
    return Steps([draw(answer) for _ in range(count)], chosen, goto)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Modelled], dict[str, Steps]]:
    chains = {name: draw(steps(CHAINS[number + 1 :])) for number, name in enumerate(CHAINS)}
    policies = st.lists(st.builds(Modelled, st.booleans(), steps(CHAINS)), min_size=1, max_size=4)
    return draw(policies), chains


def expected(
    policies: list[Modelled], chains: dict[str, Steps]
) -> tuple[str, list[str], Counter[str], Counter[str]]:
    """Return verdict, matched policies, how often each stage ran, how often each chose a chain."""
    ran: Counter[str] = Counter()
    chose: Counter[str] = Counter()
    matched = []
    for number, policy in enumerate(policies):
        ran[f"t/p{number}/s"] += 1
        if not policy.matches:
            continue
        matched.append(f"p{number}")
        said = run(f"t/p{number}", policy.do, chains, ran, chose)
        if said in (ACCEPT, DROP):
            return ("drop" if said == DROP else "pass"), matched, ran, chose
    return "pass", matched, ran, chose


def run(home: str, do: Steps, chains: dict[str, Steps], ran: Counter[str], chose: Counter[str]) -> int:
    for number, (answer, chosen) in enumerate(zip(do.answers, do.chosen, strict=True)):
        name = f"{home}/a{number}"
        ran[name] += 1
        if answer in (RETURN, ACCEPT, DROP):
            return answer
        following = CHAINS[answer - CHOICE - 1] if CHOICE < answer <= CHOICE + len(CHAINS) else ""
        if following in chosen:
            chose[name] += 1
            return run(f"t/@{following}", chains[following], chains, ran, chose)
    if not do.goto:
        return NEXT
    ran[f"{home}/goto"] += 1
    return run(f"t/@{do.goto}", chains[do.goto], chains, ran, chose)


def actors(path: Path, do: Steps) -> tuple[Stage, ...]:
    ref = FragmentRef("test", str(path), "answers")
    return tuple(
        Stage(
            f"a{n}",
            "actor",
            "answers",
            "answers()",
            ref,
            struct.pack("<I", answer),
            chains=tuple((CHAINS.index(name) + 1, name) for name in chosen),
        )
        for n, (answer, chosen) in enumerate(zip(do.answers, do.chosen, strict=True))
    )


def led_to(do: Steps, chains: dict[str, Steps]) -> set[str]:
    names = {do.goto, *(name for chosen in do.chosen for name in chosen)} - {""}
    return names.union(*(led_to(chains[name], chains) for name in names))


def bound(path: Path, number: int, policy: Modelled, chains: dict[str, Steps]) -> BoundPolicy:
    ref = FragmentRef("test", str(path), "is_set")
    asks = Stage("s", "selector", "is_set", "is_set()", ref, struct.pack("<I", policy.matches))
    names = led_to(policy.do, chains)
    return BoundPolicy(
        table="t",
        name=f"p{number}",
        when=model.Select(model.StageSpec("selector", "s")),
        selectors=(asks,),
        actors=actors(path, policy.do),
        goto=policy.do.goto,
        chains=tuple(
            BoundChain(name, actors(path, chains[name]), chains[name].goto)
            for name in CHAINS
            if name in names
        ),
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("hook", "backend"), [("ingress", "xdp"), ("egress", "tc")])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables())
def test_policies_with_named_chains_do_what_the_model_does(
    compiled: Path, hook: str, backend: str, engine: str, table: tuple[list[Modelled], dict[str, Steps]]
) -> None:
    policies, chains = table
    made = [bound(compiled, number, policy, chains) for number, policy in enumerate(policies)]
    assume(engine == "fused" or context.depth(plan(hook, made)) <= context.MOST_CALLS)
    verdict, matched, ran, chose = expected(policies, chains)
    with Runner(made, hook, backend, engine=engine) as runner:
        got = runner.run(PACKET)
    assert (got.verdict, list(got.matched), got.data) == (verdict, matched, PACKET)
    counts = {name: count for name, count in got.counts.items() if name}
    assert {name for name, count in counts.items() if count.packets} == set(ran)
    for name, count in counts.items():
        assert count.packets == ran[name], name
        if not name.endswith("/s"):
            assert count.bytes == ran[name] * LENGTH, name
            assert count.matches == chose[name], name


@pytest.mark.parametrize("engine", ENGINES)
def test_a_chain_that_was_not_given_counts_as_refused_and_the_next_stage_runs(
    compiled: Path, engine: str
) -> None:
    chains = {name: Steps([NEXT], [()], "") for name in CHAINS}
    policy = Modelled(True, Steps([CHOICE + 3, CHOICE + 77, DROP], [("one",), ("two",), ()], ""))
    with Runner([bound(compiled, 0, policy, chains)], engine=engine) as runner:
        got = runner.run(PACKET)
    assert got.verdict == "drop"
    assert [got.counts[f"t/p0/a{n}"].reasons for n in (0, 1)] == [{"refused": 1}, {"refused": 1}]


@pytest.mark.parametrize("engine", ENGINES)
def test_one_change_of_a_shared_stage_acts_in_all_policies(
    parameters: Parameters, compiled: Path, engine: str
) -> None:
    chains = {name: Steps([NEXT], [()], "") for name in CHAINS}
    both = [bound(compiled, n, Modelled(True, Steps([], [], "one")), chains) for n in range(2)]
    with Runner(both, engine=engine) as runner:
        assert runner.run(PACKET).counts["t/@one/a0"].packets == 2
        (record,) = [one for one in runner.loaded.description.chains[0].stages if one.id == "a0"]
        assert len(record.entries) == (0 if engine == "fused" else 2)
        assert record.slot is not None
        with parameters(runner) as words:
            layout.change(words, record.slot, struct.pack("<I", DROP))
        if engine == "fused":
            got = runner.run(PACKET)
            assert (got.verdict, got.counts["t/@one/a0"].packets) == ("drop", 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_counters_of_policies_and_chains_in_different_chunks_are_told_apart(
    compiled: Path, engine: str
) -> None:
    """More stages than share a value of the counters' map, in an order that goes back and forth."""
    chains = {
        "one": Steps([NEXT] * 100, [()] * 100, ""),
        "two": Steps([NEXT], [()], ""),
        "three": Steps([NEXT], [()], ""),
    }
    policies = [
        Modelled(True, Steps([NEXT] * 90, [()] * 90, "")),
        Modelled(True, Steps([CHOICE + 1], [("one", "two")], "three")),
        Modelled(True, Steps([NEXT], [()], "two")),
    ]
    if engine != "fused":
        chains["one"], policies[0] = Steps([NEXT] * 9, [()] * 9, ""), Modelled(True, Steps([NEXT], [()], ""))
    made = [bound(compiled, number, policy, chains) for number, policy in enumerate(policies)]
    with Runner(made, engine=engine) as runner:
        got = runner.run(PACKET)
    _, _, ran, _ = expected(policies, chains)
    assert {name: count.packets for name, count in got.counts.items() if name and count.packets} == ran


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("port", "chain"), [(7, "one"), (8, "two")])
def test_an_actor_chooses_by_the_packet(compiled: Path, engine: str, port: int, chain: str) -> None:
    ref = FragmentRef("test", str(compiled), "by_port")
    chooser = Stage(
        "c", "actor", "by_port", "by_port()", ref, struct.pack("<QQ", 1, 2), chains=((1, "one"), (2, "two"))
    )
    ends = Steps([NEXT], [()], "")
    policy = BoundPolicy(
        "t",
        "p",
        None,
        (),
        (chooser,),
        chains=tuple(BoundChain(n, actors(compiled, ends)) for n in CHAINS[:2]),
    )
    with Runner([policy], engine=engine) as runner:
        got = runner.run(build(sport=port, options=[Dss(data_ack=7)]))
    assert [name for name, count in got.counts.items() if "@" in name and count.packets] == [f"t/@{chain}/a0"]
