# SPDX-License-Identifier: Apache-2.0
"""Stages that are measured alone do what they are measured for, time after time."""

from __future__ import annotations

import json
from itertools import product

import pytest

from emptcp.chain.dryrun import Runner
from emptcp.cli.main import main
from emptcp.packet.decode import decode
from emptcp_bench.ops import FAMILIES, PLACES, Case, cases, policy_of
from emptcp_bench.ops_table import OPS

pytestmark = pytest.mark.kernel

WINDOW = {4: slice(48, 50), 6: slice(68, 70)}


def differs(case: Case, after: bytes) -> bool:
    """Whether the window, and nothing but it and the checksum, is another one."""
    window = WINDOW[case.family]
    check = slice(window.start + 2, window.stop + 2)
    whole = bytearray(after)
    whole[window], whole[check] = case.packet[window], case.packet[check]
    return after[window] != case.packet[window] and bytes(whole) == case.packet and decode(after).valid


@pytest.mark.timeout(300)
@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_each_stage_does_its_work_in_every_run_of_a_trial(place: tuple[str, str]) -> None:
    with cases(*place) as measured:
        selectors_choose(measured)
        actors_act(measured)
        the_rest_passes(measured)


def selectors_choose(measured: list[Case]) -> None:
    """What a selector matches is rewritten by the actor behind it, and nothing else."""
    for case in (one for one in measured if one.op.kind == "selector"):
        after = case.runner.run(case.packet).data
        if case.acts:
            assert differs(case, after), case.op.title
            assert differs(case, case.without.run(case.packet).data), case.op.title
        else:
            assert (after, case.without.run(case.packet).data) == (case.packet, case.packet), case.op.title


def alone(case: Case) -> bytes:
    """What the actor makes of the packet when nothing brings it back."""
    policy = policy_of(case.op, case.family, ())
    with Runner([policy], "ingress", case.runner.backend) as runner:
        for earlier in case.op.earlier if not case.op.once else ():
            runner.run(earlier.build(case.family))
        return runner.run(case.packet).data


def actors_act(measured: list[Case]) -> None:
    for case in (one for one in measured if one.op.kind == "actor" and one.acts):
        title, stage = case.op.title, case.op.text.partition("(")[0]
        ran = case.runner.run(case.packet, repeat=5)
        counts = ran.counts[f"bench/ops/{stage}"]
        assert counts.packets == 5, title
        assert ran.reason is None, title
        if case.op.does == "rewrites":
            assert (ran.data, ran.verdict) == (case.packet, "pass"), title
            changed = alone(case)
            assert changed != case.packet, title
            assert decode(changed).valid, title
            assert case.without.run(changed).data == case.packet, title
        elif case.op.does == "drops":
            # 8 kbit/s let a packet through every third of a second.
            assert ran.verdict == "drop", title
            assert counts.drops >= 4, title
        else:
            assert (ran.data, ran.verdict) == (case.packet, "pass"), title


def the_rest_passes(measured: list[Case]) -> None:
    for case in (one for one in measured if not one.acts):
        ran = case.runner.run(case.packet, repeat=5)
        assert (ran.data, ran.verdict) == (case.packet, "pass"), case.op.title


@pytest.mark.timeout(300)
def test_the_quick_run_has_a_row_for_each_stage_packet_and_family(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "ops", "--json", "--quick"]) == 0
    answer = json.loads(capsys.readouterr().out)
    rows = {(one["stage"], one["packet"], one["family"]) for one in answer["rows"]}
    for op, family in product(OPS, FAMILIES):
        assert (op.title, "acts", f"IPv{family}") in rows
        assert ((op.title, "passes", f"IPv{family}") in rows) == (op.passes is not None)
    assert all(isinstance(one["tc fused, ns"]["median"], int | float) for one in answer["rows"])
