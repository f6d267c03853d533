# SPDX-License-Identifier: Apache-2.0
"""What tests mount is gone when they have ended, however they did: tried by tests that pytest runs inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from emptcp_sdk.testing import mounts

pytestmark = pytest.mark.kernel
pytest_plugins = ["pytester"]

MOUNTING = """
import subprocess
import pytest
from emptcp_sdk.testing import mounts

def mount(folder):
    (folder / "bpf").mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(folder / "bpf")], check=True)

@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    mount(made := tmp_path_factory.mktemp("shared"))
    return made

def test_one_fails(shared, tmp_path):
    mount(tmp_path)
    raise AssertionError("on purpose")

def test_what_outlives_a_test_is_there_in_the_next(shared, tmp_path_factory):
    assert mounts.mounted(tmp_path_factory.getbasetemp()) == [shared / "bpf"]
"""


def test_no_mount_is_left_also_after_a_failure(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((Path(__file__).parents[2] / "conftest.py").read_text())
    pytester.makepyfile(MOUNTING)
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    left = mounts.mounted(pytester.path)
    mounts.unmount(left)
    done.assert_outcomes(passed=1, failed=1)
    assert left == []
