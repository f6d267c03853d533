# SPDX-License-Identifier: Apache-2.0
"""Reads paths as the operator writes them: rates and times with units as in tc(8), one per path."""

from __future__ import annotations

from emptcp.errors import EmptcpError
from emptcp.lab.path import Path
from emptcp.policy.values import Rate, Time


def paths(rates: str, rtts: str) -> list[Path]:
    """Paths of comma-separated rates and round-trip times, two at least; one value counts for all paths.

    >>> [path.rtt for path in paths("100mbit", "20ms,50ms")]
    [0.02, 0.05]
    """
    rate_list, rtt_list = rates.split(","), rtts.split(",")
    count = max(2, len(rate_list), len(rtt_list))
    pairs = zip(_for_all(rate_list, count, "rate"), _for_all(rtt_list, count, "rtt"), strict=True)
    return [Path(rate=rate(one), rtt=seconds(other)) for one, other in pairs]


def rate(text: str) -> float:
    """A rate such as ``100mbit`` in bit/s."""
    return float(Rate().parse(text.strip()) * 8)


def seconds(text: str) -> float:
    """A time such as ``20ms`` in seconds."""
    return float(Time().parse(text.strip()) / 1e9)


def _for_all(values: list[str], count: int, what: str) -> list[str]:
    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise EmptcpError(
            f"--{what} has {len(values)} values, but there are {count} paths",
            fix="Give one value for all paths, or one for each.",
        )
    return values
