# SPDX-License-Identifier: Apache-2.0
"""Goodput by data sequence numbers, packet by packet: of a subflow, and of its connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpCapable, MpJoinSyn
from emptcp.packet.tcp import Nop, Timestamps

pytestmark = pytest.mark.kernel

Policy = Callable[..., Any]
Told = Callable[..., Any]

GOODPUT = "record('goodput')"
IDSN = (1 << 64) - 250  # the numbers go around soon, the lower half of them too
TOKENS = (7, 8)


def mapping(at: int, size: int = 100, *, wide: bool = True, fin: bool = False, ssn: int = 0) -> Dss:
    """The mapping of ``size`` bytes from the data's byte ``at`` on; with ``fin`` the data ends there."""
    dsn = (IDSN + 1 + at) & (1 << 64) - 1 if wide else (IDSN + 1 + at) & 0xFFFFFFFF
    return Dss(
        data_ack=1, dsn=dsn, subflow_seq=ssn, data_length=size + fin, data_fin=fin, wide_dsn=wide
    )  # fmt: skip


def brings(runner: Any, *options: Any, sport: int = 40000, **rest: Any) -> None:
    for option in options:
        packet = build(options=[option], payload=bytes(10), sport=sport, **rest)
        result = runner.run(packet)
        assert (result.verdict, result.data) == ("pass", packet)


def counts(told: list[dict[str, float]]) -> list[float]:
    return [found.get("goodput_bytes_0", 0) for found in told]


V6 = {"family": 6}


@pytest.mark.parametrize("shape", [{}, V6, {"vlan": [7]}, {"vlan": [7, 8], **V6}], ids=str)
@pytest.mark.parametrize("wide", [True, False], ids=["8 bytes", "4 bytes"])
def test_each_mapping_counts_once(policy: Policy, told: Told, wide: bool, shape: Any) -> None:
    runner = policy(GOODPUT)
    # As the segments of a merged packet have it, then a later one, then the earlier one sent again.
    for at in (0, 0, 100, 300, 100):
        brings(runner, mapping(at, wide=wide), **shape)
    (found,) = told(runner)
    assert found["goodput_bytes_0"] == 300
    assert found["goodput_0"] > 0


def test_what_overlaps_counts_by_what_is_new(policy: Policy, told: Told) -> None:
    runner = policy(GOODPUT)
    brings(runner, mapping(0), mapping(50), mapping(20, 10))
    assert counts(told(runner)) == [150]


def test_the_end_of_the_data_is_no_data(policy: Policy, told: Told) -> None:
    runner = policy(GOODPUT)
    brings(runner, mapping(0), mapping(100, 50, fin=True), mapping(150, 0, fin=True), mapping(150, 0))
    assert counts(told(runner)) == [150]


def test_data_that_comes_with_an_mp_capable_counts_once(policy: Policy, told: Told) -> None:
    runner = policy(GOODPUT)
    first = MpCapable(1, 2, data_length=30)
    brings(runner, first, first)
    assert counts(told(runner)) == [30]
    brings(runner, mapping(30, ssn=31), mapping(130, ssn=131))
    assert counts(told(runner)) == [230]
    assert counts(told(runner, TOKENS)) == [230]


def test_a_first_number_of_4_bytes_is_completed_by_one_of_8(policy: Policy, told: Told) -> None:
    runner = policy(GOODPUT)
    brings(runner, mapping(200, wide=False), mapping(300), mapping(400, wide=False))
    brings(runner, mapping(500), sport=40001)
    assert counts(told(runner)) == [300, 100]
    assert counts(told(runner, TOKENS, TOKENS)) == [400]


def test_what_two_subflows_carry_counts_once_for_the_connection(policy: Policy, told: Told) -> None:
    runner = policy(GOODPUT)
    brings(runner, mapping(0), mapping(200))
    # The first chunk again, and one between.
    brings(runner, mapping(0), mapping(100), sport=40001)
    assert counts(told(runner)) == [200, 200]
    assert counts(told(runner, TOKENS, TOKENS)) == [300]


def test_a_subflow_with_its_ends_the_other_way_round_is_of_the_same_end(policy: Policy, told: Told) -> None:
    runner = policy(GOODPUT)
    brings(runner, mapping(0))
    brings(runner, mapping(100), src="10.1.0.2", dst="10.1.0.1")
    first, second = told(runner)
    assert (first["goodput_bytes_0"], second["goodput_bytes_1"]) == (100, 100)
    (whole,) = told(runner, TOKENS, TOKENS[::-1])
    assert (whole["goodput_bytes_0"], "goodput_bytes_1" in whole) == (200, False)


def test_numbers_of_4_bytes_on_several_subflows_can_not_be_compared(policy: Policy, told: Told) -> None:
    runner = policy(GOODPUT)
    brings(runner, mapping(0, wide=False))
    brings(runner, mapping(100), sport=40001)
    assert counts(told(runner)) == [100, 100]
    assert counts(told(runner, TOKENS, TOKENS)) == [0]


@pytest.mark.parametrize("block", [[Nop()] * 20, [Timestamps(1, 2), Dss(data_ack=1), Nop(), Nop()]], ids=str)
def test_without_a_mapping_there_is_nothing_to_count(policy: Policy, told: Told, block: Any) -> None:
    runner = policy(GOODPUT, when="packet_type('dss', 'no_mptcp')")
    brings(runner, Dss(data_ack=1))
    runner.run(build(options=block, payload=bytes(100)))
    assert told(runner) == [{}]


@pytest.fixture
def runner(policy: Policy) -> Any:
    """One for all examples: each of them is a connection of its own, with the same ends."""
    return policy(GOODPUT)


STEPS = st.tuples(st.booleans(), st.integers(0, 600), st.integers(1, 90), st.booleans())


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=1, max_size=20))
def test_it_tells_what_the_model_tells(
    runner: Any, told: Told, steps: list[tuple[bool, int, int, bool]]
) -> None:
    """The model: the greatest number that each subflow had, and the range that both went through."""
    for port in (0, 1):
        runner.run(build(flags="S", options=[MpJoinSyn(0, 1, 2, 3)], sport=40000 + port))
    brought, ends, lows = [0, 0], [None, None], []
    for second, at, size, wide in steps:
        known, end = ends[second], at + size
        # Until a number of 8 bytes came nobody could compare the subflows.
        brings(runner, mapping(at, size, wide=wide or known is None), sport=40000 + second)
        if known is None:
            lows.append(at)
        brought[second] += max(0, min(size, end - (at if known is None else known)))
        ends[second] = max(end, known or 0)
    assert counts(told(runner)) == brought
    assert counts(told(runner, TOKENS, TOKENS)) == [max(end or 0 for end in ends) - min(lows)]
