# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests: `emptcp apply` does not watch over what it applied, unless a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_guard_window() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_GUARD_WINDOW", "0")
        yield
