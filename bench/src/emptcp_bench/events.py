# SPDX-License-Identifier: Apache-2.0
"""How many events of packets reach Python in a second, when none may be lost."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from emptcp import pybpf
from emptcp.chain.dryrun import Runner
from emptcp.chain.plan import BoundPolicy, Stage
from emptcp.control.duty import decode
from emptcp.errors import EmptcpError
from emptcp_bench import programs
from emptcp_bench.answer import Answer, Row
from emptcp_bench.measure import Spread
from emptcp_bench.packets import packets
from emptcp_bench.progress import Progress

BURST = 1000
"""Packets between two reads: fewer than the ring holds."""

EVENTS, QUICK_EVENTS = 100_000, 2000

_HOW = f"""\
Events a second. An actor sends one for every packet of one subflow, numbered; the program is run on bursts of
{BURST:,} packets, and after each Python reads what is there, in the same thread. The time of both counts, so
this is less than what a reader on a processor of its own can take. Every number must come, and the counter
of lost events must stay at zero. `decoded`: made the object that plugins get; `records`: the bytes alone."""


def measure(rounds: int, quick: bool) -> Answer:
    """Measure both ways of reading in turns."""
    progress, number = Progress(rounds), QUICK_EVENTS if quick else EVENTS
    ways: dict[str, Callable[[bytes], int]] = {"decoded": _decoded, "records": _number}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, read in ways.items():
            rates[way].append(rate(number, read))
        progress.step("read")
    rows: list[Row] = [{"read as": way, "events a second": Spread.of(found)} for way, found in rates.items()]
    return Answer("events", _HOW, rounds, rows, {"events_per_second": Spread.of(rates["decoded"]).median})


def rate(number: int, read: Callable[[bytes], int]) -> float:
    """Return how many events a second came. Raises EmptcpError when one of the numbers did not."""
    packet, seen = packets()["selected"], list[int]()
    policy = BoundPolicy("bench", "tell", None, (), (_tell(),))
    with Runner([policy], "ingress", "tc") as runner:
        maps = runner.shared.cores()
        with pybpf.RingBuffer(maps["emptcp_events"](), lambda record: seen.append(read(record))) as ring:
            began = time.perf_counter()
            for _ in range(number // BURST):
                runner.loaded.program.test_run(packet, repeat=BURST)
                ring.poll(0)
            took = time.perf_counter() - began
        lost = sum(struct.unpack("<Q", one)[0] for one in maps["emptcp_lost"]().lookup_percpu(bytes(4)) or ())
    if seen != list(range(1, number + 1)) or lost:
        raise EmptcpError(f"{number - len(set(seen))} of {number} events did not come, {lost} were lost")
    return number / took


def _tell() -> Stage:
    return programs.stage("actor", "tell", source="ops", state_size=8, key=True)


def _decoded(record: bytes) -> int:
    event = decode(record, {"tell": "bench"})
    assert event is not None
    return int(struct.unpack_from("<Q", event.data)[0])


def _number(record: bytes) -> int:
    return int(struct.unpack_from("<Q", record, len(record) - 8)[0])
