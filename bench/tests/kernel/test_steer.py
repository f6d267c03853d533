# SPDX-License-Identifier: Apache-2.0
"""`emptcp bench steer` measures every mode."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emptcp.chain import running
from emptcp.cli.main import main
from emptcp_bench.steer import MODES

pytestmark = pytest.mark.kernel


def test_the_quick_run_measures_every_mode_and_applies_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    assert main(["bench", "steer", "--json", "--quick"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == 1
    assert [one["mode"] for one in answer["modes"]] == list(MODES)
    assert all(one["without"]["min"] > 0 and one["ratio"]["min"] > 0 for one in answer["modes"])
    assert running.everything() == {}
