# SPDX-License-Identifier: Apache-2.0
"""How long `emptcp apply` watches: as the option says, else the file, else the environment."""

from __future__ import annotations

import argparse

import pytest

from emptcp.cli import apply, guard_window
from emptcp.errors import EmptcpError
from emptcp.policy import file


def window(*words: str, text: str = "") -> float:
    parser = argparse.ArgumentParser()
    apply.register(parser.add_subparsers())
    return guard_window.of(file.loads(f'table = "t"\n{text}'), parser.parse_args(["apply", "F", *words]))


FILE = 'guard_window = "1min"'


@pytest.mark.parametrize(
    ("variable", "text", "words", "seconds"),
    [
        ("", "", [], 30),
        ("12", "", [], 12),
        ("0", "", [], 0),
        ("12", FILE, [], 60),
        ("12", 'guard_window = "0s"', [], 0),
        ("12", FILE, ["--guard-window", "5"], 5),
        ("12", FILE, ["--guard-window", "0"], 0),
        ("12", FILE, ["--dry-run"], 0),
        ("", "", ["--confirm", "20"], 10),
        ("", "", ["--confirm", "90"], 30),
        ("", "", ["--confirm", "20", "--guard-window", "15"], 15),
    ],
)
def test_the_option_goes_before_the_file_and_that_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, words: list[str], seconds: float
) -> None:
    monkeypatch.setenv("EMPTCP_GUARD_WINDOW", variable)
    assert window(*words, text=text) == seconds


@pytest.mark.parametrize("text", ["soon", "-1", "0.5", "nan", "86401"])
def test_what_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("EMPTCP_GUARD_WINDOW", text)
    with pytest.raises(EmptcpError, match=rf"EMPTCP_GUARD_WINDOW: '{text}' is no time"):
        window()
    with pytest.raises(SystemExit):
        window(f"--guard-window={text}")
