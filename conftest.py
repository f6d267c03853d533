# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests.

`emptcp apply` does not watch over what it applied, unless a test asks for it. Searches have no time limit for
one example: the machine may be busy. No test leaves a BPF file system mounted, whatever became of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from emptcp_sdk.testing import mounts

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(autouse=True, scope="session")
def _no_guard_window() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_GUARD_WINDOW", "0")
        yield


@pytest.fixture(autouse=True, scope="module")
def _module_leaves_no_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    mounts.unmount(mounts.mounted(tmp_path_factory.getbasetemp()))


@pytest.fixture(autouse=True)
def _test_leaves_no_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Unmount what was mounted since all other fixtures that outlive the test were made."""
    folder = tmp_path_factory.getbasetemp()
    before = set(mounts.mounted(folder))
    yield
    mounts.unmount(place for place in mounts.mounted(folder) if place not in before)
