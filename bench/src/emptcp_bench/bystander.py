# SPDX-License-Identifier: Apache-2.0
"""What packets cost that no policy wants: UDP, plain TCP, subflows that the selector misses."""

from __future__ import annotations

from emptcp_bench import chain
from emptcp_bench.answer import Answer
from emptcp_bench.chain import Case
from emptcp_bench.measure import COUNTED, TURNS

REPEAT, QUICK_REPEAT = 20_000, 200

CASES = (
    Case("UDP", "udp", "fused_flows_1", ("look_up",)),
    Case("plain TCP", "plain", "fused_flows_1", ("look_up",)),
    Case("MPTCP of another flow than these 10,000", "missed", "fused_flows_1", ("look_up", "whole_flows_1")),
    Case("MPTCP of another flow than this one", "missed", "fused_flow_1", ("look_up", "whole_flow_1")),
    Case("UDP past a state per flow", "udp", "fused_state_1", ("look_up",)),
    Case("plain TCP past a state per flow", "plain", "fused_state_1", ("look_up",)),
    Case("UDP past tail calls", "udp", "tail_flows_1", ("look_up",)),
    Case("plain TCP past tail calls", "plain", "tail_flows_1", ("look_up",)),
)

FIGURES = {
    "udp_over_look_up": ("fused_flows_1", "udp", "look_up"),
    "plain_tcp_over_look_up": ("fused_flows_1", "plain", "look_up"),
    "missed_over_monolith": ("fused_flows_1", "missed", "whole_flows_1"),
    "missed_flow_over_monolith": ("fused_flow_1", "missed", "whole_flow_1"),
}
"""The program, the packet, and what it is compared with."""

_HOW = """\
Nanoseconds per packet that no policy wants, net of the empty program's, and their ratio to those of a
program written by hand that takes turns with it: `look_up` looks the 4-tuple of a TCP or UDP packet up in a
hash table of 10,000 flows, `whole_*` does by hand what core promises of every policy. {turns} turns of
{repeat} packets per program and round by BPF_PROG_TEST_RUN, of which the {counted} quickest count. A figure
is the worse one of the two hooks."""


def measure(rounds: int, quick: bool) -> Answer:
    """Measure every bystander at both hooks."""
    repeat = QUICK_REPEAT if quick else REPEAT
    found = chain.measure(rounds, repeat, CASES)
    costs = {(one.backend, one.program, one.packet): one.ns.median for one in found.costs}
    rows = [
        {
            "packet": one.case.title,
            "hook": one.backend,
            "against": one.against,
            "ns": costs[one.backend, one.case.program, one.case.packet]
            - costs[one.backend, "empty", one.case.packet],
            "ns of the other": costs[one.backend, one.against, one.case.packet]
            - costs[one.backend, "empty", one.case.packet],
            "ratio": one.ratio,
        }
        for one in found.comparisons
    ]
    how = _HOW.format(turns=TURNS, repeat=repeat, counted=COUNTED)
    return Answer("bystander", how, rounds, rows, chain.figures(found.comparisons, FIGURES))
