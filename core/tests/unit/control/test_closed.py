# SPDX-License-Identifier: Apache-2.0
"""The file with connections that ended: bounded, and never in anybody's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from emptcp.control.closed import MOST, ClosedConnection, ClosedSubflow, keep, kept_connections


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    return tmp_path


def connection(token: int) -> ClosedConnection:
    subflow = ClosedSubflow(("10.0.0.1", token), ("fd00::2", 80), 3, 2, 1, final=True)
    return ClosedConnection(token, 7, 1.5, (subflow,))


def test_what_is_kept_is_read_back() -> None:
    assert kept_connections() == []
    keep([connection(1)])
    keep([connection(2), connection(3)])
    assert kept_connections() == [connection(1), connection(2), connection(3)]


def test_only_the_last_ones_are_kept() -> None:
    for start in range(0, MOST + 60, 40):
        keep([connection(token) for token in range(start, start + 40)])
    tokens = [one.token for one in kept_connections()]
    assert tokens == list(range(tokens[-1] - MOST + 1, tokens[-1] + 1))


@pytest.mark.parametrize("text", ["", "{}", '{"connections": [{"token": 1}]}', "[[", '{"connections": 3}'])
def test_a_damaged_file_is_as_good_as_none(folder: Path, text: str) -> None:
    (folder / "closed.json").write_text(text)
    assert kept_connections() == []
    keep([connection(1)])
    assert kept_connections() == [connection(1)]
