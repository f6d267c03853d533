# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: no test leaves a BPF file system mounted, whatever became of it.

In a ``conftest.py``: ``pytest_plugins = ["emptcp_sdk.testing.leftovers"]``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import mounts


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
