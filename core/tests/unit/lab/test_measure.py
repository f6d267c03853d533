# SPDX-License-Identifier: Apache-2.0
"""Rates and shares from samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.lab import measure
from emptcp.lab.measure import Sample


def sample(at: float, p: int, q: int, backup: bool = False) -> Sample:
    return Sample(at, {"p": p, "q": q}, {"p": False, "q": backup}, {})


def test_a_steady_stream_has_its_rate_in_every_row() -> None:
    samples = [sample(tick / 10, tick * 1_250_000, 0) for tick in range(31)]
    rows = measure.rows(samples, 1.0)
    assert [(row.begin, row.end) for row in rows] == [(0, 1), (1, 2), (2, 3)]
    assert [row.mbit["p"] for row in rows] == pytest.approx([100, 100, 100])
    assert [row.total for row in rows] == pytest.approx([100, 100, 100])


def test_a_stretch_between_samples_lies_on_the_straight_line() -> None:
    samples = [sample(0, 0, 0), sample(2, 1_000_000, 0)]
    assert measure.acked(samples, 0.5) == {"p": 250_000, "q": 0}
    assert measure.row(samples, 0.5, 1.5).mbit["p"] == pytest.approx(4)


def test_a_row_tells_who_was_backup_at_its_end() -> None:
    samples = [sample(0, 0, 0), sample(0.9, 1, 1, backup=True), sample(2, 2, 2)]
    assert measure.row(samples, 0, 1).backup["q"] is True
    assert measure.row(samples, 1, 2).backup["q"] is False


def test_what_was_not_sampled_to_its_end_is_no_row() -> None:
    assert measure.rows([], 1.0) == []
    assert len(measure.rows([sample(0, 0, 0), sample(1.99, 1, 1)], 1.0)) == 1


def test_the_share_of_nothing_is_nothing() -> None:
    still = [sample(0, 5, 5), sample(1, 5, 5)]
    assert measure.share(still, "p", 0, 1) == 0.0


STEPS = st.lists(
    st.tuples(st.floats(0.01, 1), st.integers(0, 10**7), st.integers(0, 10**7)), min_size=2, max_size=50
)


@given(steps=STEPS, step=st.floats(0.1, 2))
def test_rows_add_up_to_what_was_delivered(steps: list[tuple[float, int, int]], step: float) -> None:
    samples = [sample(0, 0, 0)]
    for gap, p, q in steps:
        last = samples[-1]
        samples.append(sample(last.at + gap, last.acked["p"] + p, last.acked["q"] + q))
    rows = measure.rows(samples, step)
    if not rows:
        return
    delivered = measure.acked(samples, rows[-1].end)
    for path in ("p", "q"):
        summed = sum(row.mbit[path] * 1e6 / 8 * (row.end - row.begin) for row in rows)
        assert summed == pytest.approx(delivered[path], abs=1)
    shares = [measure.share(samples, path, 0, samples[-1].at) for path in ("p", "q")]
    assert sum(shares) == pytest.approx(1) or sum(shares) == 0
