# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests.

`emptcp apply` does not watch over what it applied, unless a test asks for it. Searches have no time limit for
one example: the machine may be busy. A test that is marked `soon` may try again when it was late. No test
leaves a BPF file system mounted, whatever became of it (those of packages see to that themselves).
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from hypothesis import settings

# The tests of packages run where nothing of this tree is installed.
pytest_plugins = ["emptcp_sdk.testing.leftovers"] if find_spec("emptcp_sdk") else []

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

LATE = [r"\) < \d", "Timeout .*pytest-timeout"]
"""How a test fails whose `assert time.monotonic() - began < SECONDS` does not hold, or whose time is over."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let a test try again that was late: how soon something is, a machine tells that does nothing else."""
    if item.get_closest_marker("soon"):
        item.add_marker(pytest.mark.flaky(reruns=2, only_rerun=LATE))


@pytest.fixture(autouse=True, scope="session")
def _no_guard_window() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_GUARD_WINDOW", "0")
        yield
