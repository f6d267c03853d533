# SPDX-License-Identifier: Apache-2.0
"""Which plugins are under test, and that enabling them touches no settings but the test run's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emptcp.plugins import state
from emptcp_sdk.testing import workbench

PROJECT = """
[project]
name = "emptcp-bench"
[project.entry-points."emptcp.plugins"]
bench = "emptcp_bench"
"""


def test_the_project_at_the_root_says_which_plugins_are_tested(tmp_path: Path) -> None:
    assert workbench.declared(tmp_path) == []
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    assert workbench.declared(tmp_path) == []
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    assert workbench.declared(tmp_path) == ["emptcp-bench:bench"]


def test_they_are_enabled_in_settings_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operators = tmp_path / "operators"
    monkeypatch.setenv("EMPTCP_ETC", str(operators))
    with workbench.enabled(["emptcp-bench:bench"], tmp_path / "etc"):
        assert state.read()["emptcp-bench:bench"].enabled
    assert os.environ["EMPTCP_ETC"] == str(operators)
    assert not operators.exists()
    monkeypatch.delenv("EMPTCP_ETC")
    with workbench.enabled([], tmp_path / "etc"):
        assert os.environ["EMPTCP_ETC"] == str(tmp_path / "etc")
    assert "EMPTCP_ETC" not in os.environ
