# SPDX-License-Identifier: Apache-2.0
"""Every CPU counts in a row of its own, and what was counted goes on in a map with more room."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from emptcp.chain import counters, owned, program
from emptcp.chain.dryrun import Runner
from emptcp.chain.objects import Objects
from emptcp.chain.owned import Previous
from emptcp.chain.plan import BoundPolicy, FragmentRef, Stage, plan
from emptcp.chain.shared import PrivateMaps
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss
from emptcp.pybpf import Map, cpu_ids

pytestmark = pytest.mark.kernel

SOURCE = """
#include <emptcp/actor.h>

EMPTCP_ACTOR(nothing, pkt, void, param) { return EMPTCP_NEXT; }

char _license[] SEC("license") = "Dual BSD/GPL";
"""
PACKET = build(src="10.0.0.1", dst="10.0.0.2", options=[Dss(data_ack=7)])


@pytest.fixture(scope="module")
def compiled(compile_bpf: Callable[[str, str], Path]) -> Path:
    return compile_bpf(SOURCE, "nothing")


@pytest.fixture
def cpus() -> Iterator[list[int]]:
    """Return the CPUs that a test may move to; it is put back."""
    before = os.sched_getaffinity(0)
    yield sorted(before)
    os.sched_setaffinity(0, before)


def policy(path: Path, name: str, stages: int) -> BoundPolicy:
    ref = FragmentRef("test", str(path), "nothing")
    return BoundPolicy(
        "t",
        name,
        None,
        (),
        tuple(Stage(f"a{n}", "actor", "nothing", "nothing()", ref, b"") for n in range(stages)),
    )


@pytest.mark.parametrize("backend", ["xdp", "tc"])
@pytest.mark.parametrize("engine", ["fused", "tail"])
def test_each_cpu_counts_in_its_own_row(compiled: Path, cpus: list[int], engine: str, backend: str) -> None:
    with Runner([policy(compiled, "p", 2)], backend=backend, engine=engine) as runner:
        for packets, cpu in enumerate(cpus, 1):
            os.sched_setaffinity(0, {cpu})
            for _ in range(packets):
                runner.run(PACKET)
        slot = runner.loaded.description.stages()["t/p/a1"].counter
        rows = owned.rows(runner.loaded.counters)
        counted = {cpu: counters.block([row], slot).packets for cpu, row in enumerate(rows)}
        assert counted == dict.fromkeys(range(cpu_ids()), 0) | {cpu: n for n, cpu in enumerate(cpus, 1)}
        assert runner.counts()["t/p/a1"].packets == sum(counted.values())


def test_counts_go_on_in_a_map_with_more_room(compiled: Path) -> None:
    place = program.Place("ingress", "xdp", 14)
    small, large = [policy(compiled, "p", 3)], [policy(compiled, "p", 3), policy(compiled, "q", 127)]
    with ExitStack() as opened:
        objects = opened.enter_context(Objects(opened.enter_context(closing(PrivateMaps()))))

        def load(policies: list[BoundPolicy], previous: Previous | None = None) -> program.Loaded:
            made = program.prepare(plan("ingress", policies), policies, place, objects, {}, previous)
            return opened.enter_context(closing(made.load()))

        first = load(small)
        first.program.test_run(PACKET, repeat=5)
        about = first.description
        slots = {name: stage.counter for name, stage in about.stages().items()}
        previous = Previous(first.counters, slots, about.following)
        again, second = load(small, previous), load(large, previous)
        assert again.counters.id == first.counters.id != second.counters.id
        second.program.test_run(PACKET, repeat=2)
        counts = owned.read_counters(second.counters, second.description)
        assert {counts[f"t/p/a{n}"].packets for n in range(3)} == {7}
        assert {counts[f"t/q/a{n}"].packets for n in range(127)} == {2}


def test_counts_of_an_elder_layout_are_read_and_go_on(compiled: Path) -> None:
    place = program.Place("ingress", "xdp", 14)
    policies = [policy(compiled, "p", 3)]
    with ExitStack() as opened:
        objects = opened.enter_context(Objects(opened.enter_context(closing(PrivateMaps()))))
        elder = opened.enter_context(Map.create("percpu_array", 4, counters.CHUNK_BYTES, 2))
        count = struct.pack("<Q", 7).ljust(counters.COUNTER_BYTES, b"\0")
        for chunk, slot in ((0, 5), (1, 3)):
            value = (bytes(slot * counters.COUNTER_BYTES) + count).ljust(counters.CHUNK_BYTES, b"\0")
            elder.update(chunk.to_bytes(4, "little"), value)
        cpus = len(owned.rows(elder))
        slots = {"t/p/a0": 5, "t/p/a2": counters.CHUNK_STAGES + 3}
        made = program.prepare(
            plan("ingress", policies), policies, place, objects, {}, Previous(elder, slots, 200)
        )
        loaded = opened.enter_context(closing(made.load()))
        loaded.program.test_run(PACKET)
        counts = owned.read_counters(loaded.counters, loaded.description)
        assert [counts[f"t/p/a{n}"].packets for n in range(3)] == [7 * cpus + 1, 1, 7 * cpus + 1]
