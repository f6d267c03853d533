# SPDX-License-Identifier: Apache-2.0
"""`emptcp bench controllers` counts the ticks of real connections."""

from __future__ import annotations

import json

import pytest

from emptcp.cli.main import main

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]


def test_the_quick_run_sees_all_connections_and_counts_ticks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "controllers", "--json", "--quick"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["connections"], answer["subflows"]) == (20, 40)
    assert answer["due"] >= 10
    assert answer["gap"]["min"] > 0
    assert answer["busy"] > 0
