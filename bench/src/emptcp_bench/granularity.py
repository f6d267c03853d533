# SPDX-License-Identifier: Apache-2.0
"""Share of the time that real flows transmit, which a chain of 4 stages takes, by what its selector takes."""

from __future__ import annotations

import statistics

from emptcp.lab.topology import Lab
from emptcp_bench.answer import Answer, Row
from emptcp_bench.flows import BACKENDS
from emptcp_bench.live import chains
from emptcp_bench.live.attached import hosts
from emptcp_bench.live.rounds import Live, in_turns
from emptcp_bench.live.traffic import Flows
from emptcp_bench.progress import Progress

FLOWS, QUICK_FLOWS = 100, 20
SECONDS, QUICK_SECONDS = 1.0, 0.5
WARM_UP = 2.0
ACTORS = 3

_HOW = """\
{flows} MPTCP connections at a time between two hosts, over two paths of 1 Gbit/s in turn, sizes as of a web
search's flows (DCTCP, figure 4); one of them never ends. Every packet that host b receives passes a chain of
a selector and three actors that rewrite the window of what it takes. Programs take turns of {seconds:g} s
while the flows go on. `ns` is the kernel's own statistics of the program per packet that passes, `share` its
time over that in which the paths transmit, the empty program's included."""


def measure(rounds: int, quick: bool) -> Answer:
    """Measure every granularity at both hooks."""
    seconds = QUICK_SECONDS if quick else SECONDS
    number = QUICK_FLOWS if quick else FLOWS
    found: dict[tuple[str, str], Live] = {}
    progress = Progress(len(BACKENDS))
    for backend in BACKENDS:
        for name, one in _live(number, backend, rounds, seconds).items():
            found[name, backend] = one
        progress.step(backend)
    rows: list[Row] = [
        {"takes": name, "hook": backend, "share, %": one.share, "ns": one.ns, "packets/s": one.packets.median}
        for (name, backend), one in found.items()
    ]
    figures: dict[str, float | None] = {}
    for backend in BACKENDS:
        shares = {name: one.share.median for (name, hook), one in found.items() if hook == backend}
        empty = shares.pop(chains.EMPTY)
        figures[f"share4_{backend}_mean"] = statistics.mean(shares.values())
        figures[f"share4_{backend}_mean_added"] = statistics.mean(shares.values()) - empty
    return Answer("granularity", _HOW.format(flows=number, seconds=seconds), rounds, rows, figures)


def _live(number: int, backend: str, rounds: int, seconds: float) -> dict[str, Live]:
    with hosts("grain") as lab, Flows(lab, number, endless=1) as flows:
        flows.run(WARM_UP)
        wanted = {name: (when, ACTORS) for name, when in selectors(lab, flows).items()}
        with chains.measured(lab, wanted, backend) as there:
            return in_turns(lab, flows, there, backend, rounds, seconds)


def selectors(lab: Lab, flows: Flows) -> dict[str, str]:
    """Return selectors from all packets to one flow, by what they take."""
    first = lab.paths[0]
    return {
        "every packet": chains.EVERY,
        "one path": f"ip_pair(saddr={first.a.address(4)}, daddr={first.b.address(4)})",
        "one flow in ten": "sample(share=10%)",
        "one flow": _endless(lab, flows),
    }


def _endless(lab: Lab, flows: Flows) -> str:
    """Return a selector for what the flow that never ends sends."""
    source, port = flows.endless
    path = next(path for path in lab.paths if path.a.address(lab.family) == source)
    return f"subflow(saddr={source}, sport={port}, daddr={path.b.address(lab.family)})"
