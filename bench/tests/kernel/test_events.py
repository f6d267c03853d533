# SPDX-License-Identifier: Apache-2.0
"""`emptcp bench events` counts events that all came, and fails when one is lost."""

from __future__ import annotations

import json

import pytest

from emptcp.cli.main import main
from emptcp.errors import EmptcpError
from emptcp_bench import events

pytestmark = pytest.mark.kernel


def test_the_quick_run_tells_a_rate_for_each_way_of_reading(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "events", "--json", "--quick"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [one["read as"] for one in answer["rows"]] == ["decoded", "records"]
    assert answer["figures"]["events_per_second"] > 0


def test_what_does_not_fit_the_ring_is_seen_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BURST", 10_000)
    with pytest.raises(EmptcpError, match="were lost"):
        events.measure(1, quick=False)
