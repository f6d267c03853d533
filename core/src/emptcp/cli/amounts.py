# SPDX-License-Identifier: Apache-2.0
"""Numbers for the eye: rates, bytes, times, and what plugins measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emptcp.plugins.occasions import Endpoint

_UNITS = {"rtt": (1e3, "ms")}


def rate(value: float | None) -> str:
    """Return bytes per second in bits, with tc's units; empty for None."""
    if value is None:
        return ""
    return _scaled(value * 8, ("bit", "kbit", "mbit", "gbit"))


def size(value: float) -> str:
    """Return bytes with a unit."""
    return _scaled(value, ("B", "kB", "MB", "GB", "TB"))


def milliseconds(seconds: float) -> str:
    """Return a time that is known (not 0)."""
    return f"{seconds * 1e3:.1f} ms" if seconds else ""


def metrics(found: Mapping[str, float]) -> str:
    """Return what plugins measured, by their names."""
    return ", ".join(f"{name} {_number(name, value)}" for name, value in found.items())


def endpoint(end: Endpoint) -> str:
    """Return an address and a port."""
    address, port = end
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def token(value: int) -> str:
    """Return a connection's token as `ss` and `ip mptcp monitor` do; empty when it is not known."""
    return f"{value:08x}" if value else ""


def _scaled(value: float, units: tuple[str, ...]) -> str:
    number = 0
    while value >= 999.5 and number < len(units) - 1:
        value /= 1000
        number += 1
    return f"{value:.3g} {units[number]}"


def _number(name: str, value: float) -> str:
    scale, unit = _UNITS.get(name.partition("_")[0], (1, ""))
    if unit:
        return f"{value * scale:.1f} {unit}"
    return f"{value:g}" if abs(value) < 1000 else f"{value:.0f}"
