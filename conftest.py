# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests.

`emptcp apply` does not watch over what it applied, unless a test asks for it. Searches have no time limit for
one example: the machine may be busy. No test leaves a BPF file system mounted, whatever became of it.
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


@pytest.fixture(autouse=True, scope="session")
def _no_guard_window() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_GUARD_WINDOW", "0")
        yield
