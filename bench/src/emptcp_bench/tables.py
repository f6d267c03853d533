# SPDX-License-Identifier: Apache-2.0
"""What a look-up in a set costs, by how many flows are in it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from random import Random

from emptcp.chain import storage
from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.errors import EmptcpError
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss
from emptcp.plugins.catalog import Catalog
from emptcp.policy import file
from emptcp.pybpf import Program, Statistics
from emptcp_bench.answer import Answer, Row
from emptcp_bench.flows import BACKENDS
from emptcp_bench.live.attached import spent
from emptcp_bench.measure import Spread
from emptcp_bench.programs import empty, stage
from emptcp_bench.progress import Progress

NUMBERS, QUICK_NUMBERS = (100, 10_000, 1_000_000), (100, 1_000)
PACKETS, QUICK_PACKETS = 4_000, 50
"""Packets of a round, each of a flow that is drawn from all."""

ACTOR, MASK = "toggle_window", 0x0100

_POLICY = """
table = "bench"
[set.flows]
key = "subflow"
size = 1048576
[[policy]]
name = "flows"
hook = "ingress"
dev = "lo"
when = "subflow in @flows"
do = ["record('packets')"]
"""
_TARGET, _PORT = IPv4Address("10.2.0.1"), 443
_HOW = """\
A selector that looks the packet's flow up in a set, and an actor that rewrites the window. Each of the
{packets:,} packets of a round is of a flow drawn from all that are in the set, and passes once, by
BPF_PROG_TEST_RUN, so that its entry is in a cache by chance only. Nanoseconds per packet by the kernel's own
statistics, less the empty program's on the same packets in the same round."""


def measure(rounds: int, quick: bool) -> Answer:
    """Measure every number of flows at both hooks."""
    numbers = QUICK_NUMBERS if quick else NUMBERS
    count = QUICK_PACKETS if quick else PACKETS
    progress = Progress(len(numbers) * len(BACKENDS))
    found: dict[tuple[str, int], Spread] = {}
    for backend in BACKENDS:
        for number in numbers:
            found[backend, number] = _measured(backend, number, rounds, count)
            progress.step(f"{number:,} flows at {backend}")
    rows: list[Row] = [
        {"hook": backend, "flows": f"{number:,}", "ns": one} for (backend, number), one in found.items()
    ]
    figures = {
        f"most_over_least_flows_{backend}": found[backend, numbers[-1]].median
        / found[backend, numbers[0]].median
        for backend in BACKENDS
    }
    return Answer("tables", _HOW.format(packets=count), rounds, rows, figures)


def _measured(backend: str, number: int, rounds: int, count: int) -> Spread:
    random = Random(number)
    with loaded(backend, number) as runner, empty(backend) as nothing, Statistics.switch_on():
        times = []
        for _ in range(rounds):
            packets = [packet(random.randrange(number)) for _ in range(count)]
            times.append(_time(runner.loaded.program, packets) - _time(nothing, packets))
        acted = runner.counts()[f"bench/flows/{ACTOR}"].packets
    if acted != rounds * count:
        raise EmptcpError(f"{rounds * count} packets were of flows in the set, and {acted} were acted on")
    return Spread.of(times)


def _time(program: Program, packets: list[bytes]) -> float:
    """Return nanoseconds per packet."""
    before = spent(program)
    for one in packets:
        program.test_run(one)
    now = spent(program) - before
    return now.time / now.runs


@contextmanager
def loaded(backend: str, number: int) -> Iterator[Runner]:
    """Load the policy, with so many flows in its set."""
    table = file.loads(_POLICY)
    bound = bind(table, table.policies[0], "ingress", Catalog.of_enabled(), lambda device: 0)
    actors = (stage("actor", ACTOR, struct.pack("<I", MASK)),)
    with Runner([replace(bound, actors=actors)], "ingress", backend) as runner:
        entry = storage.entry(b"", 0)
        runner.store("set", "flows").update_batch((key(one), entry) for one in range(number))
        yield runner


def source(number: int) -> tuple[IPv4Address, int]:
    """Return where a flow comes from: 50 ports of each address."""
    return IPv4Address("10.1.0.0") + number // 50, 20_000 + number % 50


def key(number: int) -> bytes:
    """Return a flow's key as the kernel's map has it: both ends, of which its source is the lower one."""
    address, port = source(number)
    return _end(address, port) + _end(_TARGET, _PORT)


def _end(address: IPv4Address, port: int) -> bytes:
    """IPv4 stands as ::ffff:a.b.c.d."""
    return bytes(10) + b"\xff\xff" + address.packed + struct.pack("!H", port)


def packet(number: int) -> bytes:
    """Return a packet of a flow."""
    address, port = source(number)
    mapping = Dss(data_ack=7, dsn=8, subflow_seq=1, data_length=200)
    return build(
        src=address, dst=_TARGET, sport=port, dport=_PORT, flags="A", options=(mapping,), payload=bytes(200)
    )
