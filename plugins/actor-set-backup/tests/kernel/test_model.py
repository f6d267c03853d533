# SPDX-License-Identifier: Apache-2.0
"""set_backup against a plain model, over any packets of one subflow, both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss, MpCapable, MpJoinSyn, MpJoinSynAck, MpPrio
from emptcp.packet.tcp import Nop, Option, Timestamps

pytestmark = pytest.mark.kernel

ACK, TIME = Dss(data_ack=1), Timestamps(7, 9)
KINDS = ["ack", "prio", "time", "join", "joined", "capable", "closing"]
SUBFLOWS = iter(range(1, 60000))


def sent(kind: str, bit: bool) -> tuple[str, list[Option]]:
    """Return the flags and the options of a packet."""
    return {
        "ack": ("A", [ACK]),
        "prio": ("A", [ACK, MpPrio(bit)]),
        "time": ("A", [TIME]),
        "join": ("S", [MpJoinSyn(1, 2, 3, backup=bit)]),
        "joined": ("SA", [MpJoinSynAck(bytes(8), 2, 3, backup=bit)]),
        "capable": ("S", [MpCapable(version=1)]),
        "closing": ("FA", [ACK]),
    }[kind]


class Model:
    """What each end was heard to say, by its own wish and in its name; None: not known."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.own: list[bool | None] = [None, None]
        self.told: list[bool | None] = [None, None]

    def passes(self, kind: str, bit: bool, end: int) -> list[Option]:
        """Return the options that the packet must have behind the actor."""
        flags, options = sent(kind, bit)
        if flags == "S":
            self.own, self.told = [None, None], [None, None]
        if kind == "capable":
            self.own[end] = False
        elif kind in ("prio", "join", "joined"):
            self.own[end], self.told[end] = bit, self.wanted
            return sent(kind, self.wanted)[1]
        elif kind in ("ack", "closing"):
            said = self.own[end] if self.told[end] is None else self.told[end]
            # A packet that ends the subflow has no room for what only matters later.
            if said != self.wanted and kind == "ack":
                self.told[end] = self.wanted
                return [*options, MpPrio(self.wanted)]
        return options


@pytest.mark.parametrize("wanted", [True, False])
def test_any_packets_of_a_subflow_come_out_as_the_model_says(
    policy: Callable[..., Any], wanted: bool
) -> None:
    runner = policy(f"set_backup(on={str(wanted).lower()})")

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(KINDS), st.booleans(), st.integers(0, 1)), max_size=8))
    def agrees(packets: list[tuple[str, bool, int]]) -> None:
        model, port = Model(wanted), next(SUBFLOWS)
        for kind, bit, end in packets:
            flags, options = sent(kind, bit)
            ends = [("10.0.0.1", port), ("10.0.0.2", 5001)]
            (src, sport), (dst, dport) = ends[::-1] if end else ends
            packet = build(src=src, sport=sport, dst=dst, dport=dport, flags=flags, options=options)
            after = decode(runner.run(packet).data)
            assert after.valid
            assert after.tcp is not None
            left = [one.option for one in after.tcp.options if not isinstance(one.option, Nop)]
            assert left == model.passes(kind, bit, end), packets

    agrees()
