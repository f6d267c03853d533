# SPDX-License-Identifier: Apache-2.0
"""Every selector and actor of this tree, on packets that nobody thought of: out comes what came in, or valid.

Stages are found, not listed; what an actor may do to a packet, its manifest says under ``modifies`` and
``verdicts``.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from random import Random

import pytest

from emptcp.chain.bind import bind, stage_ids
from emptcp.chain.dryrun import VERDICTS, Runner
from emptcp.chain.placement import indexes
from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.packet.decode import decode
from emptcp.plugins import manifest, state
from emptcp.plugins.catalog import BoundStage, Catalog, StageType
from emptcp.plugins.discovery import ENABLED, Plugin
from emptcp.plugins.manager import Manager
from emptcp.policy.file import loads
from emptcp.policy.values import any_device
from emptcp_sdk.compiler import compile_source, find_compiler
from emptcp_sdk.fuzz import declared, finding, judge
from emptcp_sdk.fuzz.driver import Driver, Ran
from emptcp_sdk.fuzz.packets import Packet
from emptcp_sdk.fuzz.search import Search, seconds
from emptcp_sdk.fuzz.stages import below
from emptcp_sdk.fuzz.stages import text as stage_text
from emptcp_sdk.testing import policy_file

pytestmark = [pytest.mark.kernel, pytest.mark.fuzz]

PLUGINS = Path(__file__).parents[2] / "plugins"
SECONDS = seconds(14)
SHORTEST_TC = 54
ROUND = 0.4
"""Seconds with one policy. There are two of every stage at least, and the longer the search the more."""

PLACES = [
    ("ingress", "xdp", "fused"),
    ("ingress", "tc", "tail"),
    ("egress", "tc", "fused"),
    ("ingress", "xdp", "tail"),
    ("ingress", "tc", "fused"),
    ("egress", "tc", "tail"),
]


@dataclass(frozen=True)
class Draw:
    """Where policies come from."""

    random: Random
    places: Iterator[tuple[str, str, str]]


@dataclass(frozen=True)
class Drawn:
    """One policy as a file says it, and where it runs."""

    text: str
    place: tuple[str, str, str]

    def load(self, catalog: Catalog) -> Trials:
        """Load the policy, if no plugin refuses it."""
        hook, backend, engine = self.place
        table = loads(self.text)
        (policy,) = table.policies
        bound = bind(table, policy, hook, catalog, indexes(namespaces.resolve()))
        if any(backend not in stage.backends for stage in bound.everything):
            raise EmptcpError(f"a stage does not work at {backend}")
        manager = Manager.of_enabled()
        stages = [catalog.bind(spec, devices=any_device) for _, spec in stage_ids(table, policy, catalog)]
        for stage in stages:
            manager.validate(stage, policy)
        return Trials(self, Runner([bound], hook, backend, engine=engine), stages[-1])


def drawn(stage: StageType, stages: list[StageType], place: tuple[str, str, str], random: Random) -> Drawn:
    """Draw a policy with the stage in it: a selector in front of any actor, an actor behind any selector."""
    others = [one for one in stages if one.kind != stage.kind]
    other = random.choice(others)
    selector, actor = (stage, other) if stage.kind == "selector" else (other, stage)
    when = stage_text(selector, random) if stage.kind == "selector" or random.random() < 0.3 else ""
    text = policy_file(stage_text(actor, random), when=when, hook=place[0])
    return Drawn(text, place)


class Trials:
    """One loaded policy, and one packet after the other."""

    def __init__(self, how: Drawn, runner: Runner, actor: BoundStage) -> None:
        self.how, self.runner, self.driver = how, runner, Driver(runner.loaded.program)
        self.allowed, self.verdicts = declared.allowed(actor), actor.type.declaration.verdicts

    def usable(self, packet: Packet) -> bool:
        return packet.link == "ethernet" and (self.how.place[1] == "xdp" or len(packet.data) >= SHORTEST_TC)

    def complaint(self, packet: Packet, ran: Ran) -> str | None:
        verdict = VERDICTS[self.how.place[1]].get(ran.answer)
        if verdict != "pass" and (verdict or "none").upper() not in self.verdicts:
            return f"the verdict is {verdict}, which the actor does not declare"
        return judge.complaint(packet, ran.data, self.allowed)

    def fault(self, packet: Packet) -> str | None:
        return self.complaint(packet, self.driver.run(packet.data)) if self.usable(packet) else None

    def found(self, what: str, packet: Packet, seed: int) -> str:
        """Report a finding, made small."""
        small = finding.minimised(packet, lambda one: self.fault(one) == what)
        # A stage that keeps state may not do it again with a packet alone.
        return finding.report(what, small if self.fault(small) else packet, repr(self.how), seed)

    def __call__(self, packet: Packet, _random: Random) -> list[Hashable]:
        if not self.usable(packet):
            return []
        ran = self.driver.run(packet.data)
        what = self.complaint(packet, ran)
        if what:
            raise Found(what, packet)
        seen = decode(packet.data)
        flags = int(seen.tcp.flags) if seen.tcp else None
        return [(ran.answer, ran.data != packet.data, len(ran.data) - len(packet.data), seen.subtypes, flags)]


class Found(Exception):
    """What is wrong, and the packet that shows it."""

    def __init__(self, what: str, packet: Packet) -> None:
        super().__init__(what)
        self.what, self.packet = what, packet


def accepted(catalog: Catalog, stage: StageType, stages: list[StageType], draw: Draw) -> Trials:
    """Load a policy with the stage; some that are drawn are refused, as a selector with nothing to select."""
    for _ in range(50):
        how = drawn(stage, stages, next(draw.places), draw.random)
        try:
            return how.load(catalog)
        except EmptcpError as refusal:
            last = f"{how.text}\n{refusal}"
    pytest.fail(f"no policy with {stage.name} was accepted; the last one: {last}")


@pytest.mark.timeout(SECONDS + 120)
def test_every_plugin_lets_a_packet_pass_as_it_was_or_valid() -> None:
    catalog = Catalog.of_enabled()
    stages = below(PLUGINS, catalog)
    search = Search(lambda _packet, _random: [])
    draw, end, runs = Draw(Random(search.seed), cycle(PLACES)), time.monotonic() + SECONDS, 0
    for turn, stage in enumerate(cycle(stages)):
        if turn >= 2 * len(stages) and time.monotonic() > end:
            break
        trials = accepted(catalog, stage, stages, draw)
        with trials.runner:
            search.try_packet = trials
            try:
                search.run(ROUND)
            except Found as found:
                pytest.fail(trials.found(found.what, found.packet, search.seed), pytrace=False)
            runs += trials.driver.runs
    print(f"seed {search.seed}: {turn} policies, {runs} runs, {len(search.seen)} behaviours")
    assert any(changed for _answer, changed, *_rest in search.seen)  # type: ignore[misc]


HELD = "an option that was not acted on was changed"
SPOILERS = """
#include <emptcp/actor.h>
#include <emptcp/kind.h>

struct spoil { __u32 how, kind; };

EMPTCP_ACTOR(spoil, pkt, struct spoil, param)
{
	const __u8 other[4] = {254, 4, 0xe0, 0xe1};
	__be16 window = 0;

	switch (param->how) {
	case 1:
		emptcp_remove_option(pkt, EMPTCP_DSS, EMPTCP_UNSAFE_DSS);
		break;
	case 2:
		emptcp_remove_option(pkt, EMPTCP_MP_CAPABLE, EMPTCP_SAFE);
		break;
	case 3:
		emptcp_remove_option(pkt, EMPTCP_MP_JOIN, EMPTCP_SAFE);
		break;
	case 4:
		emptcp_remove_option(pkt, EMPTCP_ADD_ADDR, EMPTCP_SAFE);
		break;
	case 5:
		emptcp_insert_option(pkt, other, sizeof(other));
		break;
	case 6:
		emptcp_remove_kind(pkt, emptcp_find_kind(pkt, 8, EMPTCP_ANY_EXID), EMPTCP_SAFE);
		break;
	case 7:
		emptcp_rewrite(pkt, pkt->parsed->l4 + 14, &window, sizeof(window));
		break;
	case 8:
		return EMPTCP_DROP;
	}
	return EMPTCP_NEXT;
}
"""
SPOILERS_MANIFEST = """
schema = 1
name = "spoil"
summary = "does what it does not say"
object = "spoil.bpf.o"

[[actor]]
name = "spoil"
help = "spoils packets"
hooks = ["ingress"]
modifies = ["remove mp_capable", "remove mp_join", "remove dss", "remove add_addr", "insert $kind"]

[[actor.parameter]]
name = "how"
type = "int"
min = 0

[[actor.parameter]]
name = "kind"
type = "int"
default = 253
"""


@pytest.fixture(scope="module")
def spoilers(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """All plugins, and a broken one that says little of what it does."""
    folder = tmp_path_factory.mktemp("spoil")
    (folder / "spoil.bpf.c").write_text(SPOILERS)
    compile_source(find_compiler(), folder / "spoil.bpf.c", folder / "spoil.bpf.o")
    said = manifest.loads(SPOILERS_MANIFEST)
    broken = Plugin("spoil", "spoil", "1", folder=folder, manifest=said, state=ENABLED)
    return Catalog([*state.judged(), broken])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (0, None),
        (1, HELD),
        (2, HELD),
        (3, HELD),
        (4, "a subflow's packet has nothing of one left"),
        (5, HELD),
        (6, HELD),
        (7, "the field window was changed"),
        (8, "the verdict is drop, which the actor does not declare"),
    ],
)
@pytest.mark.parametrize("place", [("ingress", "xdp", "fused"), ("ingress", "tc", "tail")], ids=str)
def test_the_search_finds_an_actor_that_does_what_it_does_not_say(
    spoilers: Catalog, how: int, said: str | None, place: tuple[str, str, str]
) -> None:
    """A DSS, an MP_CAPABLE or an MP_JOIN must not go without unsafe=true, though the manifest says so."""
    trials = Drawn(policy_file(f"spoil(how={how})"), place).load(spoilers)
    with trials.runner, pytest.raises(Found) if said else nullcontext() as found:
        Search(trials, seed=1).run(0, at_least=3000)
    assert found is None or found.value.what == said


def test_what_the_policy_calls_unsafe_may_go(spoilers: Catalog) -> None:
    text = policy_file("remove_option(option=dss, unsafe=true)")
    trials = Drawn(text, PLACES[0]).load(spoilers)
    search = Search(trials, seed=1)
    with trials.runner:
        search.run(0, at_least=1000)
    assert any(changed for _answer, changed, *_rest in search.seen)  # type: ignore[misc]
