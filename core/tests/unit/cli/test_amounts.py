# SPDX-License-Identifier: Apache-2.0
"""Numbers as an operator reads them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from emptcp.cli import amounts


@pytest.mark.parametrize(
    ("rate", "said"),
    [(None, ""), (0.0, "0 bit"), (124.0, "992 bit"), (125_000.0, "1 mbit"), (1.25e9, "10 gbit")],
)
def test_rates_are_in_bits(rate: float | None, said: str) -> None:
    assert amounts.rate(rate) == said


@pytest.mark.parametrize(
    ("size", "said"), [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (1_500_000, "1.5 MB")]
)
def test_sizes_have_three_figures(size: float, said: str) -> None:
    assert amounts.size(size) == said


def test_ends_tokens_times_and_metrics() -> None:
    assert amounts.endpoint((ip_address("fd00::1"), 80)) == "[fd00::1]:80"
    assert (amounts.token(0x1A2B), amounts.token(0)) == ("00001a2b", "")
    assert (amounts.milliseconds(0.0205), amounts.milliseconds(0)) == ("20.5 ms", "")
    assert amounts.metrics({"rtt_min": 0.02, "bytes_0": 123456.0}) == "rtt_min 20.0 ms, bytes_0 123456"
