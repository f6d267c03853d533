# SPDX-License-Identifier: Apache-2.0
"""What the guard switched off, and where that is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from emptcp.chain import tables, trips
from emptcp.chain.trips import Trip

ONE = Trip("t", "p", "lab", 7, 1000.0, {"MP_FAIL": 2})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    return tmp_path


def test_what_was_noted_is_read_and_counted_by_policy() -> None:
    again = replace(ONE, time=2000.0, seen={"MP_FAIL": 1, "MPTcpExtDssFallback": 4})
    other = replace(ONE, policy="q")
    assert trips.read() == []
    for trip in (ONE, again, other):
        trips.note(trip)
    assert trips.read() == [ONE, again, other]
    counts = trips.counts()
    assert counts["t", "p"] == trips.Count(2, 2000.0, {"MP_FAIL": 3, "MPTcpExtDssFallback": 4})
    assert counts["t", "q"].trips == 1
    assert counts["t", "none"] == trips.Count()


def test_what_is_told_of_a_table_goes_with_it() -> None:
    other = replace(ONE, table="u")
    trips.note(ONE)
    trips.note(other)
    tables.begin(tables.Entry("t", ""))
    tables.finish(tables.Entry("t", ""))
    assert trips.read() == [other]


def test_a_line_that_is_no_record_tells_nothing(folder: Path) -> None:
    trips.note(ONE)
    with open(folder / "guard.jsonl", "a") as file:
        file.write('{"table": "t"}\n{"tab')
    assert trips.read() == [ONE]
    trips.note(ONE)
    assert trips.read() == [ONE, ONE]


def test_the_oldest_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trips, "MOST", 3)
    for second in range(5):
        trips.note(replace(ONE, time=float(second)))
    assert [trip.time for trip in trips.read()] == [2.0, 3.0, 4.0]


def test_it_is_said_with_what_was_seen_and_what_undoes_it() -> None:
    trip = replace(ONE, policy="slow path")
    assert str(trip) == "the guard switched off policy 'slow path' of table 't': MP_FAIL 2 in lab"
    assert trip.fix == "emptcp on t 'slow path'"
