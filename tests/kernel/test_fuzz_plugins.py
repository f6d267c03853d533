# SPDX-License-Identifier: Apache-2.0
"""Every selector and actor of this tree, on packets that nobody thought of: out comes what came in, or valid.

Stages are found, not listed; what an actor may change is what its manifest says under ``modifies``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from random import Random

import pytest

from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.errors import EmptcpError
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Subtype
from emptcp.plugins.catalog import Catalog, StageType
from emptcp.plugins.manifest import Parameter
from emptcp.policy.file import loads
from emptcp_sdk.fuzz import finding, judge
from emptcp_sdk.fuzz.driver import Driver
from emptcp_sdk.fuzz.packets import Packet
from emptcp_sdk.fuzz.search import Search, seconds
from emptcp_sdk.testing import policy_file

pytestmark = [pytest.mark.kernel, pytest.mark.fuzz]

ROOT = Path(__file__).parents[2]
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
FIELDS = {"window", "ecn", "seq", "ack", "flags", "urgent"}
SUBTYPES = {subtype.name.lower(): int(subtype) for subtype in Subtype}

VALUES: dict[str, Callable[[Random], str]] = {
    "bool": lambda random: random.choice(("true", "false")),
    "int": lambda random: str(random.choice((0, 1, 2, 7, 255, 65535))),
    "rate": lambda random: random.choice(("8kbit", "8mbit", "1gbit")),
    "size": lambda random: random.choice(("1", "1500", "64k")),
    "time": lambda random: random.choice(("1ms", "20ms", "1s")),
    "percent": lambda random: random.choice(("0%", "50%", "100%")),
    "port": lambda random: random.choice(("80", "5001", "40000")),
    "ipaddr": lambda random: random.choice(("10.0.0.1", "10.0.0.2", "fd00::1")),
    "prefix": lambda random: random.choice(("10.0.0.0/8", "10.0.0.1", "fd00::/8", "0.0.0.0/0")),
    "dev": lambda _random: "lo",
    "string": lambda _random: "'text'",
}


def value(parameter: Parameter, random: Random) -> str:
    """Return some value of a parameter as a policy writes it."""
    names = getattr(parameter.type, "names", None)
    if names:
        count = random.randrange(1, len(names) + 1) if parameter.many else 1
        return ", ".join(f"'{name}'" for name in random.sample(sorted(names), count))
    return VALUES[parameter.type.kind](random)


def stage_text(stage: StageType, random: Random) -> str:
    """Return the stage with some of its parameters."""
    parts = []
    for parameter in stage.declaration.parameters:
        if parameter.type.kind == "chain" or not (parameter.required or random.random() < 0.6):
            continue
        text = value(parameter, random)
        parts.append(text if parameter.many else f"{parameter.name}={text}")
    return f"{stage.name}({', '.join(parts)})"


def may_change(stage: StageType) -> judge.Allowed:
    """Return what an actor says that it changes."""
    told = set(stage.declaration.modifies)
    if told == {"options"}:
        return judge.Allowed(subtypes=frozenset(range(16)), kinds=frozenset(range(2, 256)))
    assert told <= FIELDS | set(SUBTYPES), f"{stage.name} modifies {told}, which no one knows to judge"
    return judge.Allowed(
        frozenset(SUBTYPES[name] for name in told & set(SUBTYPES)), fields=frozenset(told & FIELDS)
    )


@dataclass(frozen=True)
class Draw:
    """Where policies come from."""

    random: Random
    places: Iterator[tuple[str, str, str]]


@dataclass(frozen=True)
class Drawn:
    """One policy as a file says it, where it runs, and what it may change."""

    text: str
    place: tuple[str, str, str]
    allowed: judge.Allowed

    def load(self, catalog: Catalog) -> Runner:
        hook, backend, engine = self.place
        table = loads(self.text)
        bound = bind(table, table.policies[0], hook, catalog)
        return Runner([bound], hook, backend, engine=engine)


def drawn(stage: StageType, stages: list[StageType], place: tuple[str, str, str], random: Random) -> Drawn:
    """Draw a policy with the stage in it: a selector in front of any actor, an actor behind any selector."""
    others = [one for one in stages if one.kind != stage.kind]
    other = random.choice(others)
    selector, actor = (stage, other) if stage.kind == "selector" else (other, stage)
    when = stage_text(selector, random) if stage.kind == "selector" or random.random() < 0.3 else ""
    text = policy_file(stage_text(actor, random), when=when, hook=place[0])
    return Drawn(text, place, may_change(actor))


class Trials:
    """One loaded policy, and one packet after the other."""

    def __init__(self, how: Drawn, runner: Runner, seed: int) -> None:
        self.how, self.driver, self.seed = how, Driver(runner.loaded.program), seed

    def usable(self, packet: Packet) -> bool:
        return packet.link == "ethernet" and (self.how.place[1] == "xdp" or len(packet.data) >= SHORTEST_TC)

    def fault(self, packet: Packet) -> str | None:
        if not self.usable(packet):
            return None
        return judge.complaint(packet, self.driver.run(packet.data).data, self.how.allowed)

    def __call__(self, packet: Packet, _random: Random) -> list[Hashable]:
        if not self.usable(packet):
            return []
        ran = self.driver.run(packet.data)
        what = judge.complaint(packet, ran.data, self.how.allowed)
        if what:
            small = finding.minimised(packet, lambda one: self.fault(one) == what)
            # A stage that keeps state may not do it again with a packet alone.
            small = small if self.fault(small) else packet
            pytest.fail(finding.report(what, small, repr(self.how), self.seed), pytrace=False)
        seen = decode(packet.data)
        flags = int(seen.tcp.flags) if seen.tcp else None
        return [(ran.answer, ran.data != packet.data, len(ran.data) - len(packet.data), seen.subtypes, flags)]


def stages_here() -> tuple[Catalog, list[StageType]]:
    """Return the installed stages, and check that those of this tree are all among them."""
    catalog = Catalog.of_enabled()
    folders = {str(path.parent) for path in ROOT.glob("plugins/*/src/*/emptcp.toml")}
    stages = [stage for stage in catalog if str(stage.object.parent) in folders]
    assert {str(stage.object.parent) for stage in stages} == folders
    return catalog, stages


def accepted(catalog: Catalog, stage: StageType, stages: list[StageType], draw: Draw) -> tuple[Drawn, Runner]:
    """Load a policy with the stage; some that are drawn are refused, as a selector with nothing to select."""
    for _ in range(50):
        how = drawn(stage, stages, next(draw.places), draw.random)
        try:
            return how, how.load(catalog)
        except EmptcpError as refusal:
            last = f"{how.text}\n{refusal}"
    pytest.fail(f"no policy with {stage.name} was accepted; the last one: {last}")


@pytest.mark.timeout(SECONDS + 120)
def test_every_plugin_lets_a_packet_pass_as_it_was_or_valid() -> None:
    catalog, stages = stages_here()
    search = Search(lambda _packet, _random: [])
    draw, end, runs = Draw(Random(search.seed), cycle(PLACES)), time.monotonic() + SECONDS, 0
    for turn, stage in enumerate(cycle(stages)):
        if turn >= 2 * len(stages) and time.monotonic() > end:
            break
        how, runner = accepted(catalog, stage, stages, draw)
        with runner:
            search.try_packet = trials = Trials(how, runner, search.seed)
            search.run(ROUND)
            runs += trials.driver.runs
    print(f"seed {search.seed}: {turn} policies, {runs} runs, {len(search.seen)} behaviours")
    assert any(changed for _answer, changed, *_rest in search.seen)  # type: ignore[misc]
