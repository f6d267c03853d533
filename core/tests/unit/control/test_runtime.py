# SPDX-License-Identifier: Apache-2.0
"""What the controllers' thread leaves to the main thread."""

from __future__ import annotations

import select
import time
from pathlib import Path

import pytest

from emptcp.control.charge import Name
from emptcp.control.runtime import Runtime, merged
from emptcp.control.settings import Changed

ONE, TWO = Name("t", "one"), Name("t", "two")
KEY, OTHER = bytes(36), bytes(35) + b"\1"


def test_of_settings_that_follow_each_other_the_last_counts() -> None:
    tasks = [
        ("", ONE, [Changed(KEY, "backup", 1), Changed(KEY, "rate", 1000)]),
        ("", TWO, [Changed(KEY, "backup", 1)]),
        ("it hangs", ONE, []),
        ("", ONE, [Changed(KEY, "backup", None), Changed(OTHER, "backup", 0)]),
    ]
    assert merged(tasks) == [
        (
            "it hangs",
            ONE,
            [Changed(KEY, "backup", None), Changed(KEY, "rate", 1000), Changed(OTHER, "backup", 0)],
        ),
        ("", TWO, [Changed(KEY, "backup", 1)]),
    ]


def test_without_tables_it_sleeps_and_ends_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    said: list[str] = []
    with Runtime(said.append) as runtime:
        runtime.start()
        assert select.select([runtime], [], [], 0.1)[0] == []
        # It may have something to import first.
        assert any(seconds_used() < 0.25 for _ in range(8))
    assert said == []


def seconds_used() -> float:
    """Return how long this process computes in half a second."""
    began = time.process_time()
    time.sleep(0.5)
    return time.process_time() - began
