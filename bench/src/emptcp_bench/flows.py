# SPDX-License-Identifier: Apache-2.0
"""Share of the time that real flows transmit, which chains of 2, 4 and 8 stages take, by how many flows."""

from __future__ import annotations

from collections.abc import Iterator

from emptcp_bench.answer import Answer, Row
from emptcp_bench.live import chains
from emptcp_bench.live.attached import hosts
from emptcp_bench.live.rounds import Live, in_turns
from emptcp_bench.live.traffic import Flows
from emptcp_bench.progress import Progress

NUMBERS, QUICK_NUMBERS = (100, 1_000, 10_000), (20,)
SECONDS, QUICK_SECONDS = 1.0, 0.5
WARM_UP, WARM_UP_EACH = 2.0, 0.0005
"""Seconds before anything is measured, and more of them for each flow."""
BACKENDS = ("tc", "xdp")

CHAINS = {f"chain of {1 + actors}": (chains.EVERY, actors) for actors in (1, 3, 7)}
LONGEST = "chain of 8"

_HOW = """\
MPTCP connections between two hosts, over two paths of 1 Gbit/s in turn, as many at a time as told; each is
followed by another, with sizes drawn from those of a web search's flows (DCTCP, figure 4). Every packet that
host b receives passes a chain: a selector that takes all, and actors that rewrite the window. Programs take
turns of {seconds:g} s while the flows go on. `ns` and `packets/s` are the kernel's own statistics of the
program (merged packets count once at TC, XDP sees each frame), `share` is the program's time over that in
which the paths transmit, the empty program's included, which stands in rows of its own. A flow that breaks,
as some of 10,000 do that share the paths, is replaced; more than one in a hundred end the measurement."""


def measure(rounds: int, quick: bool) -> Answer:
    """Measure every chain with every number of flows at both hooks."""
    seconds = QUICK_SECONDS if quick else SECONDS
    numbers = QUICK_NUMBERS if quick else NUMBERS
    progress = Progress(len(numbers) * len(BACKENDS))
    found: dict[tuple[int, str, str], Live] = {}
    for number in numbers:
        for backend in BACKENDS:
            found |= {
                (number, backend, name): one for name, one in _live(number, backend, rounds, seconds).items()
            }
            progress.step(f"{number:,} flows at {backend}")
    return Answer("flows", _HOW.format(seconds=seconds), rounds, list(_rows(found)), _figures(found))


def _live(number: int, backend: str, rounds: int, seconds: float) -> dict[str, Live]:
    with (
        hosts("flows") as lab,
        chains.measured(lab, CHAINS, backend) as there,
        Flows(lab, number) as flows,
    ):
        flows.run(WARM_UP + WARM_UP_EACH * number)
        return in_turns(lab, flows, there, backend, rounds, seconds)


def _rows(found: dict[tuple[int, str, str], Live]) -> Iterator[Row]:
    for (number, backend, name), one in found.items():
        yield {
            "flows": f"{number:,}",
            "hook": backend,
            "program": name,
            "share, %": one.share,
            "ns": one.ns,
            "packets/s": one.packets.median,
            "Mbit/s": one.mbit.median,
        }


def _figures(found: dict[tuple[int, str, str], Live]) -> dict[str, float | None]:
    """The largest share of a chain of 8, the most that it adds to the empty program's, and its evenness."""
    figures: dict[str, float | None] = {}
    for backend in BACKENDS:
        shares = [
            (one.share.median, one.share.median - found[number, backend, chains.EMPTY].share.median)
            for (number, hook, name), one in found.items()
            if (hook, name) == (backend, LONGEST)
        ]
        values = [share for share, _ in shares]
        figures[f"share8_{backend}"] = max(values)
        figures[f"share8_{backend}_added"] = max(added for _, added in shares)
        figures[f"share8_{backend}_most_over_least"] = max(values) / min(values) if min(values) else None
    return figures
