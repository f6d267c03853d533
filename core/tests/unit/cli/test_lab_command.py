# SPDX-License-Identifier: Apache-2.0
"""``emptcp lab run USE-CASE``: what is fixed is not taken from the command line."""

from __future__ import annotations

import pytest

from emptcp.cli import main


@pytest.mark.parametrize(
    "words", [["--no-policy"], ["--rate", "5mbit"], ["--rtt", "5ms"], ["--policy", "x.toml"]]
)
def test_a_grid_is_fixed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["lab", "run", "overflow", *words]) == 1
    assert "the paths and the policy of overflow are fixed" in capsys.readouterr().err


def test_an_unknown_scenario_is_told_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["lab", "run", "overflaw"]) == 1
    assert "there is no scenario 'overflaw'" in (said := capsys.readouterr().err)
    assert "overflow" in said


def test_rounds_are_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["lab", "run", "overflow", "--rounds", "0"])
    assert ended.value.code == 2
