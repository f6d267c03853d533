# SPDX-License-Identifier: Apache-2.0
"""What the live tests of rate_limit share: how rates are judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def settle() -> Callable[..., None]:
    """Return what measures again and again until it holds: a busy machine spoils some seconds, not all."""

    def until(measure: Callable[[], Any], holds: Callable[[Any], bool], attempts: int = 8) -> None:
        seen: list[Any] = []
        while len(seen) < attempts:
            seen.append(measure())
            if holds(seen[-1]):
                return
        raise AssertionError(f"did not hold in any of {attempts}, in bytes per second: {seen}")

    return until
