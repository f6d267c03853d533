# SPDX-License-Identifier: Apache-2.0
"""What a hash per flow can make of two subflows."""

from __future__ import annotations

import pytest

from emptcp.lab.tenants import outcomes


@pytest.mark.parametrize("links", [1, 2, 3, 8])
def test_the_outcomes_are_all_that_a_hash_can_choose(links: int) -> None:
    found = dict(outcomes(links))
    assert sum(found.values()) == pytest.approx(1)
    assert sum(chance for (one, other), chance in found.items() if one == other) == pytest.approx(1 / links)
    assert len(found) == links * (links + 1) // 2
