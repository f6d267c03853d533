# SPDX-License-Identifier: Apache-2.0
"""`emptcp bench accuracy` measures, and leaves nothing."""

from __future__ import annotations

import json

import pytest

from emptcp.chain import running
from emptcp.cli.main import main

pytestmark = [pytest.mark.kernel, pytest.mark.traffic]


def test_the_quick_run_measures_one_rate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "accuracy", "--json", "--quick"]) in (0, 1)
    answer = json.loads(capsys.readouterr().out)
    assert answer["rounds"] == 1
    limited, other = answer["rows"]
    assert limited["measured"][0] == pytest.approx(10, rel=0.2)
    assert other["unit"] == "of its own"
    assert running.everything() == {}
