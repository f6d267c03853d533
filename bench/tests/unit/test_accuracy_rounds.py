# SPDX-License-Identifier: Apache-2.0
"""Rounds that a hypervisor disturbed are measured again; none is chosen by its result."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emptcp_bench.accuracy import rounds
from emptcp_bench.accuracy.rounds import ATTEMPTS, measured, stolen
from emptcp_bench.processors import Ticks

NONE = Ticks(*[0] * 8)
CALM, ROBBED = Ticks(10, 0, 10, 80, 0, 0, 0, 0), Ticks(10, 0, 10, 70, 0, 0, 0, 10)


def test_what_was_stolen_is_a_share_of_all_time() -> None:
    assert stolen(NONE, CALM) == 0
    assert stolen(NONE, ROBBED) == pytest.approx(0.1)
    assert stolen(CALM, CALM) == 0


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Ticks]:
    """Return the ticks that each measurement is to take."""
    wanted: list[Ticks] = []

    def ticks() -> Iterator[Ticks]:
        while True:
            yield NONE
            yield wanted.pop(0)

    found = ticks()
    monkeypatch.setattr(rounds, "ticks", lambda: next(found))
    return wanted


def test_a_disturbed_round_is_measured_again(readings: list[Ticks]) -> None:
    readings += [ROBBED, CALM, CALM]
    results = iter(range(9))
    assert measured(2, lambda: next(results)) == (1, 2)


def test_at_last_what_there_is_counts(readings: list[Ticks]) -> None:
    readings += [ROBBED] * ATTEMPTS
    results = iter(range(9))
    assert measured(1, lambda: next(results)) == (ATTEMPTS - 1,)
