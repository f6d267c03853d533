# SPDX-License-Identifier: Apache-2.0
"""Sizes of flows are drawn as published, and actors leave a window as they found it."""

from __future__ import annotations

from functools import reduce
from operator import xor
from random import Random

import pytest

from emptcp_bench.live.chains import LOWEST, masks
from emptcp_bench.live.traffic import SIZES, draw


def test_sizes_are_drawn_as_published() -> None:
    random = Random(7)
    drawn = sorted(draw(random) for _ in range(20_000))
    assert drawn[0] >= 1
    assert drawn[-1] <= SIZES[-1][0]
    for most, share in SIZES[1:]:
        assert sum(size <= most for size in drawn) / len(drawn) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("actors", [3, 7, 15])
def test_together_the_actors_change_nothing(actors: int) -> None:
    found = masks(actors)
    assert len(found) == actors
    assert all(found)
    assert reduce(xor, found) == 0


def test_one_actor_changes_the_lowest_bit() -> None:
    assert masks(1) == [LOWEST]
