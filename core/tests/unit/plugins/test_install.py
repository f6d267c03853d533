# SPDX-License-Identifier: Apache-2.0
"""`emptcp plugins install`: what it does not install. That it does, tests/packaging shows."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

from emptcp.errors import EmptcpError
from emptcp.plugins.install import install


@pytest.mark.parametrize(
    "wanted",
    [".", "./plugin", "plugin-1.0.tar.gz", "plugin.zip", "git+https://host/a", "a @ file:///a", "--editable"],
)
def test_what_runs_code_when_it_is_installed_is_refused(wanted: str) -> None:
    with pytest.raises(EmptcpError, match="is neither a name nor a wheel") as caught:
        install([wanted])
    assert "Only wheels are installed" in caught.value.fix


def test_a_wheel_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(EmptcpError, match=r"there is no wheel '.*/x\.whl'"):
        install([str(tmp_path / "x.whl")])


def test_the_systems_own_python_is_left_to_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "EXTERNALLY-MANAGED").write_text("[externally-managed]\n")
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(EmptcpError, match="runs in the system's own Python") as caught:
        install(["emptcp-actor-drop"])
    assert "python3 -m venv" in caught.value.fix
