# SPDX-License-Identifier: Apache-2.0
"""The fixtures for authors, tried by tests that pytest runs inside of a test."""

from __future__ import annotations

import pytest

from emptcp_sdk.packets import Dss, MpJoinSyn, Nop, WindowScale, build
from emptcp_sdk.testing import Everywhere, LiveLab, Row, policy_file

pytestmark = pytest.mark.kernel

pytest_plugins = ["pytester"]

DSS, JOIN = Dss(data_ack=1), MpJoinSyn(1, 2, 3)
SYN = build(flags="S", options=[JOIN, WindowScale(7), Nop()])
ADD = "add_option(exid=0xe0e1)"

TABLE = [
    Row("a selected packet is dropped", build(options=[DSS]), verdict="drop", when="packet_type('dss')"),
    Row("another passes", SYN, when="packet_type('dss')"),
    Row("a guarded one says why", build(flags="FA", options=[DSS]), reason="closing", do=ADD),
    Row("one that changed", build(options=[DSS]), out=build(options=[DSS, b"\xfd\x04\xe0\xe1"]), do=ADD),
]


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_rows(row: Row, run_packet: Everywhere) -> None:
    row.check(run_packet)


@pytest.mark.parametrize(
    "row",
    [
        Row("the verdict differs", SYN, verdict="drop", do="add_option(exid=0xe0e1)"),
        Row("the reason differs", SYN, reason="signed", do="add_option(exid=0xe0e1)"),
        Row("the packet differs", build(options=[DSS]), do="add_option(exid=0xe0e1)"),
    ],
    ids=str,
)
def test_a_row_that_is_not_met_fails(row: Row, run_packet: Everywhere) -> None:
    with pytest.raises(AssertionError, match=row.name):
        row.check(run_packet)


def test_state_is_kept_from_packet_to_packet(run_packet: Everywhere) -> None:
    """Selector `sample` counts the packets that it saw."""
    verdicts = [run_packet(build(options=[DSS]), when="sample(every=2)").verdict for _ in range(4)]
    assert sorted(verdicts) == ["drop", "drop", "pass", "pass"]


def test_every_place_of_the_named_hooks_is_asked() -> None:
    asked = []
    with Everywhere(lambda place, _runner, _packet: asked.append(str(place))) as run_packet:
        run_packet(SYN, ADD)
        assert asked == [
            "ingress, xdp, fused",
            "ingress, xdp, tail",
            "ingress, tc, fused",
            "ingress, tc, tail",
            "egress, tc, fused",
            "egress, tc, tail",
        ]
        asked.clear()
        run_packet(SYN, ADD, hooks=["egress"])
        assert asked == ["egress, tc, fused", "egress, tc, tail"]


def test_the_report_has_a_line_for_each_place(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from emptcp_sdk.packets import Dss, build
        from emptcp_sdk.testing import Row

        ROW = Row("an ACK", build(options=[Dss(data_ack=1)]), verdict="drop")

        @pytest.mark.parametrize("row", [ROW], ids=str)
        def test_rows(row, run_packet):
            row.check(run_packet)
        """
    )
    result = pytester.runpytest_subprocess("--packet-times", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    lines = [line for line in result.outlines if line.endswith("test_rows[an ACK]") and "ress, " in line]
    assert len(lines) == 6
    assert any(int(line.split()[0]) > 10 for line in lines)


def test_policies_act_between_the_hosts_of_the_lab(lab: LiveLab) -> None:
    lab.apply(lab.a, policy_file(ADD, hook="egress", dev="path*"))
    transfer = lab.transfer(100_000)
    assert (transfer.intact, transfer.mptcp, transfer.bad_checksums) == (True, True, 0)
    assert sum(one.packets for one in lab.counts("trial/trial/add_option")) > 20
    with pytest.raises(LookupError, match="known are: trial/trial/add_option"):
        lab.counts("trial/trial/another")
