# SPDX-License-Identifier: Apache-2.0
"""Generated tables and packets through both engines, by every carrier: same bytes, verdicts and counters.

Every selector and actor of this tree that needs no clock takes part. ``EMPTCP_FUZZ_SECONDS`` makes the test
go on with other tables for so long; without it there are :data:`TABLES`.
"""

from __future__ import annotations

import dataclasses
import os
import random
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_network

import pytest

from emptcp.chain import context
from emptcp.chain.bind import bind
from emptcp.chain.carriers import LONG_METADATA
from emptcp.chain.dryrun import Result, Runner
from emptcp.chain.plan import BoundPolicy, companions_for, plan
from emptcp.errors import EmptcpError
from emptcp.packet import mptcp
from emptcp.packet.build import build
from emptcp.packet.layers import Extension, Protocol
from emptcp.packet.tcp import EndOfList, MaximumSegmentSize, Nop, Other, Sack, Timestamps, WindowScale
from emptcp.plugins.catalog import Catalog
from emptcp.policy import file
from emptcp.pybpf import BpfError, features

pytestmark = [pytest.mark.kernel, pytest.mark.fuzz]

TABLES, PACKETS = 80, 40
SIDES = [("ingress", "xdp"), ("ingress", "tc"), ("egress", "tc")]
# 32 bytes in front of a packet are eight entries: too few for these policies.
ENGINES = ["fused", "tail", *(["tail-metadata"] if features.has("long_metadata") else [])]

SELECTORS = [
    "packet_type({type})",
    "packet_type({type}, {type})",
    "subflow(dport={port})",
    "subflow(saddr={address}, sport={port})",
    "ip_pair(saddr={prefix})",
    "ip_pair(daddr={prefix})",
    "subflow in @some",
    "ip_pair in @pairs",
]
TYPES = [
    *("mp_capable", "mp_join", "dss", "add_addr", "add_addr_echo", "remove_addr", "mp_prio", "mp_fail"),
    *("mp_fastclose", "mp_tcprst", "data_ack", "data_fin", "syn", "synack", "ack", "data", "fin", "rst"),
    "no_mptcp",
]
ACTORS = [
    *(
        "set_backup(on=true)",
        "set_backup(on=false)",
        "set_backup(on=subflow @bits)",
        "record('packets', 'bytes')",
    ),
    # A byte takes a millisecond, so that no time passes for it.
    "rate_limit(rate=8kbit, burst=1ms, mode=mark)",
    "rate_limit(rate=8kbit, burst=10s, mode=police)",
    "rate_limit(rate=8kbit, burst=1ms, mode=mark, per=policy)",
]
ADDRESSES = {4: ["10.0.0.1", "10.0.0.2", "192.168.7.9"], 6: ["fd00::1", "fd00::2", "2001:db8::9"]}
PORTS = [443, 5001, 40000]


def expression(draw: random.Random, depth: int = 0) -> str:
    kind = draw.choice(["leaf", "leaf", "leaf", "and", "or", "not"]) if depth < 4 else "leaf"
    if kind == "not":
        return f"not ({expression(draw, depth + 1)})"
    if kind != "leaf":
        return f"({expression(draw, depth + 1)} {kind} {expression(draw, depth + 1)})"
    family = draw.choice([4, 6])
    address = draw.choice(ADDRESSES[family])
    length = draw.choice([0, 8, 24, 32 if family == 4 else 128])
    prefix = f"'{ip_network(f'{address}/{length}', strict=False)}'"
    text = draw.choice(SELECTORS)
    while "{type}" in text:
        text = text.replace("{type}", draw.choice(TYPES), 1)
    return text.format(port=draw.choice(PORTS), address=f"'{address}'", prefix=prefix)


def do(draw: random.Random, chains: list[str]) -> str:
    steps = [draw.choice(ACTORS) for _ in range(draw.randint(1, 2))]
    if chains and draw.random() < 0.4:
        steps.append(f"goto {draw.choice(chains)}")
    return ", ".join(f'"{step}"' for step in steps)


def table(draw: random.Random, hook: str) -> str:
    lines = ['table = "t"']
    for number in range(draw.randint(1, 3)):
        lines += ["[[policy]]", f'name = "p{number}"', f'hook = "{hook}"', 'dev = "any0"']
        if draw.random() < 0.9:
            lines.append(f'when = "{expression(draw)}"')
        lines.append(f"do = [{do(draw, ['one', 'two'])}]")
    lines += ["[chain.one]", f"do = [{do(draw, ['two'])}]", "[chain.two]", f"do = [{do(draw, [])}]"]
    ends = "10.0.0.1:40000-10.0.0.2:5001"
    lines += ["[set.some]", 'key = "subflow"', f'entries = ["{ends}", "[fd00::1]:443-[fd00::2]:5001"]']
    lines += ["[set.pairs]", 'key = "ip_pair"', 'entries = ["10.0.0.1-192.168.7.9", "fd00::1-fd00::2"]']
    lines += ["[map.bits]", 'key = "subflow"', 'type = "bool"', f'entries = {{"{ends}" = true}}']
    return "\n".join(lines)


def option(draw: random.Random) -> object:
    number = draw.randrange(1 << 32)
    made = draw.choice(
        [
            lambda: Nop(),
            lambda: Timestamps(number, number ^ 7),
            lambda: mptcp.Dss(data_ack=number, wide_ack=draw.random() < 0.5),
            lambda: mptcp.Dss(data_ack=number, dsn=number, data_length=4),
            lambda: mptcp.MpPrio(backup=draw.random() < 0.5),
            lambda: mptcp.MpCapable(flags=1, sender_key=number, receiver_key=number + 1),
            lambda: mptcp.MpCapable(flags=1, sender_key=number, version=0),
            lambda: mptcp.MpJoinSyn(number, 9, 1),
            lambda: mptcp.RemoveAddress((1, 2)),
            lambda: mptcp.MpFail(number),
            lambda: mptcp.MpFastclose(number),
            lambda: Sack(((1, 2),)),
            lambda: WindowScale(number % 16),
            lambda: MaximumSegmentSize(1400),
            lambda: Other(253, draw.randbytes(draw.randint(0, 6))),
            lambda: bytes((30, draw.randint(0, 30), draw.randrange(256))),
            lambda: EndOfList(),
        ]
    )
    return made()


def block(draw: random.Random) -> list[object]:
    """Options that fit into a header."""
    chosen: list[object] = []
    size = 0
    for _ in range(draw.randint(0, 8)):
        one = option(draw)
        length = len(one) if isinstance(one, bytes) else len(one.encode())  # type: ignore[attr-defined]
        if size + length <= 40:
            chosen.append(one)
            size += length
    return chosen


def packet(draw: random.Random) -> bytes:
    family = draw.choice([4, 4, 6])
    first, second = draw.sample(ADDRESSES[family], 2)
    more: dict[str, object] = {}
    if draw.random() < 0.1:
        more["vlan"] = [draw.randrange(4096)] * draw.randint(1, 3)
    if family == 4 and draw.random() < 0.1:
        more["fragment"] = (draw.choice([0, 0, 5]), True)
    if family == 4 and draw.random() < 0.1:
        more["ip_options"] = b"\1" * 4
    if family == 6 and draw.random() < 0.1:
        more["extensions"] = [Extension(Protocol.HOP_BY_HOP, bytes(7))]
    made = build(
        family=family,  # type: ignore[arg-type]
        src=first,
        dst=second,
        sport=draw.choice(PORTS),
        dport=draw.choice(PORTS),
        flags=draw.choice(["A", "A", "A", "PA", "S", "SA", "FA", "RA"]),
        window=draw.choice([0, 1, 512, 65535]),
        options=block(draw),  # type: ignore[arg-type]
        payload=draw.randbytes(draw.choice([0, 0, 4, 1000])),
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


def policies(text: str, hook: str) -> list[BoundPolicy]:
    read, catalog = file.loads(text), Catalog.of_enabled()
    return [bind(read, one, hook, catalog) for one in read.policies]


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


ROUNDS = 3


def compared(seed: int) -> list[tuple[bool, bool]]:
    """Let a table's packets pass all engines; return of each whether it was changed and whether it matched.

    Actors that do something at most so often come out otherwise when the machine is busy elsewhere between
    two engines: packets that differ must differ in each of some rounds.
    """
    for _ in range(ROUNDS - 1):
        with suppress(AssertionError):
            return compared_once(seed)
    return compared_once(seed)


def compared_once(seed: int) -> list[tuple[bool, bool]]:
    draw = random.Random(seed)
    hook, backend = SIDES[seed % len(SIDES)]
    text = table(draw, hook)
    made = policies(text, hook)
    if not fits(made, hook):
        return []
    found = []
    with ExitStack() as opened:
        try:
            runners = [opened.enter_context(Runner(made, hook, backend, engine=engine)) for engine in ENGINES]
        except EmptcpError as error:
            if "more steps than it allows" in error.sentence:
                return []
            raise
        for _ in range(PACKETS):
            data = packet(draw)
            ctx = merged(draw, data, backend)
            fused, *others = (outcome(runner, data, ctx) for runner in runners)
            for engine, other in zip(ENGINES[1:], others, strict=True):
                assert other == fused, f"{engine}, seed {seed}, packet {data.hex()}, table\n{text}"
            came = isinstance(fused, Result)
            found.append((came and fused.data != data, came and bool(fused.matched)))
    return found


@pytest.mark.timeout(3600)
def test_generated_tables_and_packets_come_out_alike_of_all_engines() -> None:
    found = [one for seed in seeds() for one in compared(seed)]
    assert len(found) > TABLES * PACKETS // 2
    assert sum(matched for _, matched in found) > len(found) // 4
    assert sum(changed for changed, _ in found) > len(found) // 40
