# SPDX-License-Identifier: Apache-2.0
"""How many instructions the verifier visits, and how long a policy takes to plan, join and load."""

from __future__ import annotations

import time

from emptcp.chain.dryrun import Runner
from emptcp.chain.plan import BoundPolicy
from emptcp_bench.answer import Answer, Row
from emptcp_bench.measure import Spread
from emptcp_bench.ops import policy_of
from emptcp_bench.ops_table import OPS
from emptcp_bench.programs import Chain, stage
from emptcp_bench.programs import policy_of as chained
from emptcp_bench.progress import Progress

STAGES = (1, 2, 4, 8, 16)
BACKENDS = ("xdp", "tc")
LIMIT = 1_000_000

_HOW = f"""\
Policies of one stage, and chains of several that rewrite the window. `visited`: instructions that the
kernel's verifier went through, of {LIMIT:,} that it allows. `code, bytes`: the machine code made of them.
`load, ms`: from a bound policy to the program in the kernel: planned, objects opened and joined, maps made,
verified; objects are in the page cache. Policies take turns."""


def policies() -> dict[str, BoundPolicy]:
    """Return what is loaded, by name: each stage once, and chains of 1 to 16 stages."""
    found = {op.text.partition("(")[0]: op for op in OPS}
    alone = {
        name: policy_of(op, 4, (stage("actor", "nothing", source="ops"),) if op.kind == "selector" else ())
        for name, op in found.items()
    }
    chains = {f"chain of {number}": _chain(number) for number in STAGES}
    return alone | chains


def _chain(stages: int) -> BoundPolicy:
    """Return a policy with a selector for one flow and actors; of one stage, an actor alone."""
    if stages == 1:
        return BoundPolicy(
            "bench", "alone", None, (), (stage("actor", "toggle_window", bytes((1, 0, 0, 0))),)
        )
    return chained(Chain("is_flow", stages - 1))


def measure(rounds: int, quick: bool) -> Answer:
    """Load everything in turns, on both back-ends."""
    wanted = [
        (name, backend, policy)
        for name, policy in policies().items()
        for backend in BACKENDS
        if all(backend in stage.backends for stage in policy.everything)
    ]
    progress = Progress(rounds)
    visited: dict[tuple[str, str], tuple[int, int]] = {}
    times: dict[tuple[str, str], list[float]] = {(name, backend): [] for name, backend, _ in wanted}
    for _ in range(rounds):
        for name, backend, policy in wanted:
            began = time.perf_counter()
            with Runner([policy], "ingress", backend) as runner:
                times[name, backend].append(1000 * (time.perf_counter() - began))
                info = runner.loaded.program.info
            visited[name, backend] = info.verified_instructions, info.jited
        progress.step("loaded")
    rows: list[Row] = [
        {
            "policy": name,
            "hook": backend,
            "visited": visited[name, backend][0],
            "code, bytes": visited[name, backend][1],
            "load, ms": Spread.of(times[name, backend]),
        }
        for name, backend, _ in wanted
    ]
    return Answer("verifier", _HOW, rounds, rows, _figures(visited))


def _figures(visited: dict[tuple[str, str], tuple[int, int]]) -> dict[str, float | None]:
    most = {name: max(n for (other, _), (n, _) in visited.items() if other == name) for name, _ in visited}
    return {
        "visited_chain_of_16": most["chain of 16"],
        "visited_chain_of_16_over_8": most["chain of 16"] / most["chain of 8"],
        "visited_most_of_a_stage": max(n for name, n in most.items() if not name.startswith("chain")),
    }
