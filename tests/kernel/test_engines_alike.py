# SPDX-License-Identifier: Apache-2.0
"""Generated tables and packets through both engines, by every carrier: same bytes, verdicts and counters.

Every selector and actor of this tree takes part; stages are found, not listed. Some keep time. They are given
values with which no round of packets takes long enough to matter, and a round that took longer is run again.
``EMPTCP_FUZZ_SECONDS`` makes the test go on with other tables for so long; else there are :data:`TABLES`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from emptcp.chain import context
from emptcp.chain.bind import bind
from emptcp.chain.carriers import LONG_METADATA
from emptcp.chain.dryrun import Result, Runner
from emptcp.chain.placement import indexes
from emptcp.chain.plan import BoundPolicy, companions_for, plan
from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.packet import mptcp
from emptcp.packet.build import build
from emptcp.packet.layers import Extension, Protocol
from emptcp.packet.tcp import EndOfList, MaximumSegmentSize, Other, Sack, Timestamps, WindowScale
from emptcp.plugins.catalog import Catalog, StageType
from emptcp.policy import file
from emptcp.pybpf import BpfError, features
from emptcp_sdk.fuzz.stages import below
from emptcp_sdk.fuzz.stages import text as stage_text

pytestmark = [pytest.mark.kernel, pytest.mark.fuzz]

TABLES, PACKETS = 60, 40
SIDES = [("ingress", "xdp"), ("ingress", "tc"), ("egress", "tc")]
# 32 bytes in front of a packet are eight entries: too few for these policies.
ENGINES = ["fused", "tail", *(["tail-metadata"] if features.has("long_metadata") else [])]

PLUGINS = Path(__file__).parents[2] / "plugins"
ADDRESSES = {4: ["10.0.0.1", "10.0.0.2", "192.168.7.9"], 6: ["fd00::1", "fd00::2", "2001:db8::9"]}
PORTS = [80, 5001, 40000]
TOKENS = [7, 0x01020304]
SETS = {
    "subflow": ["10.0.0.1:40000-10.0.0.2:5001", "[fd00::1]:80-[fd00::2]:5001"],
    "ip_pair": ["10.0.0.1-192.168.7.9", "fd00::1-fd00::2"],
    "saddr": ["10.0.0.0/8", "fd00::1"],
    "daddr": ["10.0.0.2", "2001:db8::/32"],
    "connection": [f"{token:#x}" for token in TOKENS],
}
"""Key -> the entries of the set that asks for it."""

SOON = 0.9
"""Seconds that a round may take: get_subflow tells after one of what it does not know, a packet takes one at
rate_limit's rate, and the window that a shorter round trip gives is less than a unit of the scale."""

PAYLOAD = 1000
"""Bytes of a second at the least rate there is, 8 kbit/s. All packets have as many, or none."""

FEW: dict[str, dict[str, list[str]]] = {
    "connection": {"token": [str(token) for token in TOKENS]},
    "option": {
        "kind": ["253", "254", "8", "30"],
        "exid": ["0", "0xe0e1"],
        "value": ["0", "7"],
        "size": ["0", "1"],
    },
    "sequence": {"first": ["0", "1", "0x80000000"], "last": ["4000000000", "9"]},
    "sample": {"every": ["1", "2", "3"], "share": ["50%", "100%"]},
    "add_option": {"exid": ["0xe0e1", "0xf989"], "value": ["0", "7"], "size": ["0", "1", "2"]},
    "remove_option": {"option": ["mp_prio", "add_addr", "remove_addr", "dss"], "kind": ["253", "8", "5"]},
    "rate_limit": {
        "rate": ["8kbit"],
        "burst": ["1ms"],
        "mode": ["mark", "mark", "police", "auto", "window"],
    },
}
"""Values of parameters that packets here go with, in place of any."""


class Stages:
    """All there are. The actors of a table are of three kinds, two of which change packets."""

    def __init__(self) -> None:
        self.catalog = Catalog.of_enabled()
        found = below(PLUGINS, self.catalog)
        self.selectors = [one for one in found if one.kind == "selector"]
        self.actors = [one for one in found if one.kind == "actor"]
        self.changing = [one for one in self.actors if one.declaration.modifies]
        self.drawn: Counter[str] = Counter()

    def text(self, stage: StageType, draw: random.Random, **told: list[str]) -> str:
        self.drawn[stage.name] += 1
        return stage_text(stage, draw, FEW.get(stage.name, {}) | told)


class Drawing:
    """Draws the stages of one table."""

    def __init__(self, draw: random.Random, stages: Stages) -> None:
        self.draw, self.stages = draw, stages
        self.actors = [*draw.sample(stages.changing, 2), draw.choice(stages.actors)]
        # All set_backup of a table want the same: else one takes back what another says, ten times a second.
        self.backup = draw.choice(["true", "false"])

    def selector(self) -> str:
        return self.stages.text(self.draw.choice(self.stages.selectors), self.draw)

    def actor(self) -> str:
        on = [self.backup, "subflow @bits"]
        return self.stages.text(self.draw.choice(self.actors), self.draw, on=on)

    def do(self, chains: list[str]) -> str:
        steps = [self.actor() for _ in range(self.draw.randint(1, 2))]
        if chains and self.draw.random() < 0.4:
            steps.append(f"goto {self.draw.choice(chains)}")
        return ", ".join(f'"{step}"' for step in steps)

    def expression(self, depth: int = 0) -> str:
        kind = self.draw.choice(["leaf", "leaf", "leaf", "and", "or", "not"]) if depth < 4 else "leaf"
        if kind == "not":
            return f"not ({self.expression(depth + 1)})"
        if kind != "leaf":
            return f"({self.expression(depth + 1)} {kind} {self.expression(depth + 1)})"
        key = self.draw.choice(sorted(SETS))
        return f"{key} in @of_{key}" if self.draw.random() < 0.2 else self.selector()


def table(draw: random.Random, stages: Stages, hook: str) -> str:
    drawing, lines = Drawing(draw, stages), ['table = "t"']
    for number in range(draw.randint(1, 3)):
        lines += ["[[policy]]", f'name = "p{number}"', f'hook = "{hook}"', 'dev = "any0"']
        if draw.random() < 0.6:
            lines.append(f'when = "{drawing.expression()}"')
        lines.append(f"do = [{drawing.do(['one', 'two'])}]")
    lines += ["[chain.one]", f"do = [{drawing.do(['two'])}]", "[chain.two]", f"do = [{drawing.do([])}]"]
    for key, entries in SETS.items():
        lines += [f"[set.of_{key}]", f'key = "{key}"', f"entries = {json.dumps(entries)}"]
    entry = f'{{"{SETS["subflow"][0]}" = {drawing.backup}}}'
    lines += ["[map.bits]", 'key = "subflow"', 'type = "bool"', f"entries = {entry}"]
    return "\n".join(lines)


def option(draw: random.Random) -> object:
    number = draw.randrange(1 << 32)
    made = draw.choice(
        [
            lambda: b"\x01" * draw.choice([1, 2, 4, 8]),
            lambda: Timestamps(number, number ^ 7),
            lambda: mptcp.Dss(data_ack=number, wide_ack=draw.random() < 0.5),
            lambda: mptcp.Dss(data_ack=number, dsn=number, data_length=4),
            lambda: mptcp.MpPrio(backup=draw.random() < 0.5),
            lambda: mptcp.MpCapable(flags=1, sender_key=number, receiver_key=number + 1),
            lambda: mptcp.MpCapable(flags=1, sender_key=number, version=0),
            lambda: mptcp.MpJoinSyn(draw.choice(TOKENS), 9, 1),
            lambda: mptcp.AddAddress(2, IPv4Address("10.0.1.1"), hmac=bytes(8)),
            lambda: mptcp.RemoveAddress((1, 2)),
            lambda: mptcp.MpFail(number),
            lambda: mptcp.MpFastclose(number),
            lambda: Sack(((1, 2),)),
            lambda: WindowScale(draw.randint(*SCALES)),
            lambda: MaximumSegmentSize(1400),
            lambda: Other(253, draw.randbytes(draw.randint(0, 6))),
            lambda: Other(draw.choice([253, 254]), b"\xe0\xe1\x07"),
            lambda: bytes((30, draw.randint(0, 30), draw.randrange(256))),
            lambda: EndOfList(),
        ]
    )
    return made()


SCALES = 12, 15
"""Of windows: less than a thousand bytes, in the :data:`SOON` of the least rate, are no unit."""


def block(draw: random.Random, syn: bool) -> list[object]:
    """Options that fit into a header; a SYN's begin with the window's scale."""
    chosen: list[object] = [WindowScale(draw.randint(*SCALES))] if syn else []
    size = 3 * syn
    for _ in range(draw.randint(0, 8)):
        one = option(draw)
        length = len(one) if isinstance(one, bytes) else len(one.encode())  # type: ignore[attr-defined]
        if size + length <= 40:
            chosen.append(one)
            size += length
    return chosen


def packet(draw: random.Random, *, data: bool) -> bytes:
    """Return a packet, with payload if ``data``."""
    family = draw.choice([4, 4, 6])
    first, second = draw.sample(ADDRESSES[family], 2)
    more: dict[str, object] = {}
    payload = draw.randbytes(PAYLOAD if data else draw.choice([0, 0, 4, PAYLOAD]))
    if draw.random() < 0.1:
        more["vlan"] = [draw.randrange(4096)] * draw.randint(1, 3)
    if family == 4 and draw.random() < 0.1:
        more["fragment"] = (draw.choice([0, 0, 5]), True)
    if family == 4 and draw.random() < 0.1:
        more["ip_options"] = b"\1" * 4
    if family == 6 and draw.random() < 0.1:
        more["extensions"] = [Extension(Protocol.HOP_BY_HOP, bytes(7))]
    flags = draw.choice(["A"] * 6 + ["PA", "PA", "S", "SA", "FA", "RA"])
    made = build(
        family=family,  # type: ignore[arg-type]
        src=first,
        dst=second,
        sport=draw.choice(PORTS),
        dport=draw.choice(PORTS),
        flags=flags,
        window=draw.choice([0, 1, 512, 65535]),
        options=block(draw, "S" in flags),  # type: ignore[arg-type]
        payload=payload,
        tos=draw.randrange(256),
        **more,  # type: ignore[arg-type]
    )
    return made[: draw.randint(34, len(made))] if draw.random() < 0.05 else made


def merged(draw: random.Random, data: bytes, backend: str) -> bytes | None:
    """Return a context that says the packet is merged, now and then."""
    if backend == "xdp" or len(data) < 200 or draw.random() > 0.2:
        return None
    ctx = bytearray(192)
    struct.pack_into("=I8xI", ctx, 164, 3, 100)  # gso_segs, gso_size
    return bytes(ctx)


def policies(text: str, hook: str, catalog: Catalog) -> list[BoundPolicy]:
    read = file.loads(text)
    devices = indexes(namespaces.resolve())
    return [bind(read, one, hook, catalog, devices) for one in read.policies]


def fits(made: list[BoundPolicy], hook: str) -> bool:
    planned = plan(hook, made, companions_for(hook, made))
    return context.depth(planned) <= context.MOST_CALLS and 4 * (len(planned.steps) + 1) <= LONG_METADATA


def outcome(runner: Runner, data: bytes, ctx: bytes | None) -> Result | str:
    try:
        return dataclasses.replace(runner.run(data, ctx=ctx), duration_ns=0)
    except BpfError as error:  # some shapes the kernel does not take for a trial
        return error.sentence


def seeds() -> Iterator[int]:
    """Yield the seeds of the tables: always the same ones on a continuous integration machine."""
    first = 0 if "CI" in os.environ else random.randrange(1 << 30)
    seconds = float(os.environ.get("EMPTCP_FUZZ_SECONDS", "0"))
    deadline, number = time.monotonic() + seconds, 0
    while number < TABLES or time.monotonic() < deadline:
        yield first + number
        number += 1


@dataclasses.dataclass
class Drawn:
    """A table and the packets that pass it, each with the context of a merged one or none."""

    seed: int
    backend: str
    hook: str
    text: str
    made: list[BoundPolicy]
    packets: list[tuple[bytes, bytes | None]]


def drawn(seed: int, stages: Stages) -> Drawn:
    """Draw a table. With a rate limit in it every packet has payload, for which a second passes."""
    draw = random.Random(seed)
    hook, backend = SIDES[seed % len(SIDES)]
    text = table(draw, stages, hook)
    sent = [packet(draw, data="rate_limit" in text) for _ in range(PACKETS)]
    packets = [(data, merged(draw, data, backend)) for data in sent]
    return Drawn(seed, backend, hook, text, policies(text, hook, stages.catalog), packets)


Outcomes = list[list[Result | str]]


def round_of(how: Drawn) -> tuple[Outcomes, float] | None:
    """Let the packets pass every engine; return what came of each, and how long all took.

    None: the table is longer than a chain may be.
    """
    with ExitStack() as opened:
        runners = []
        try:
            for engine in ENGINES:
                made = Runner(how.made, how.hook, how.backend, engine=engine)
                runners.append(opened.enter_context(made))
        except EmptcpError as error:
            if "more steps than it allows" in error.sentence:
                return None
            raise
        begun = time.monotonic()
        found = [[outcome(runner, data, ctx) for data, ctx in how.packets] for runner in runners]
        return found, time.monotonic() - begun


def compared(how: Drawn) -> list[tuple[bool, bool]]:
    """Compare the engines; return of each packet whether it was changed and whether it matched."""
    if not fits(how.made, how.hook):
        return []
    for _ in range(TRIES):
        came = round_of(how)
        if came is None:
            return []
        (fused, *others), took = came
        if took < SOON:
            break
    else:
        pytest.fail(f"{TRIES} rounds took over {SOON} s, seed {how.seed}")
    for engine, other in zip(ENGINES[1:], others, strict=True):
        for number, (data, _) in enumerate(how.packets):
            assert other[number] == fused[number], (
                f"{engine}, seed {how.seed}, {data.hex()}, table\n{how.text}"
            )
    return [
        (isinstance(one, Result) and one.data != data, isinstance(one, Result) and bool(one.matched))
        for one, (data, _) in zip(fused, how.packets, strict=True)
    ]


TRIES = 10


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Stay on one CPU: sample counts packets on each."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("one_cpu")
def test_generated_tables_and_packets_come_out_alike_of_all_engines() -> None:
    stages = Stages()
    found = [one for seed in seeds() for one in compared(drawn(seed, stages))]
    print(f"{len(found)} packets, {sum(c for c, _ in found)} changed, {sum(m for _, m in found)} matched")
    assert set(stages.drawn) == {stage.name for stage in (*stages.selectors, *stages.actors)}
    assert len(found) > TABLES * PACKETS // 2
    assert sum(matched for _, matched in found) > len(found) // 4
    assert sum(changed for changed, _ in found) > len(found) // 20
