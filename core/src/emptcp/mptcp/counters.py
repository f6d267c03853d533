# SPDX-License-Identifier: Apache-2.0
"""The kernel's IP, TCP and MPTCP counters of a network namespace."""

from __future__ import annotations

from pathlib import Path


def read_counters() -> dict[str, int]:
    """The counters of the calling thread's namespace, named as nstat does (``MPTcpExtMPPrioRx``)."""
    counters: dict[str, int] = {}
    for name in ("snmp", "netstat"):
        lines = Path(f"/proc/thread-self/net/{name}").read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            counters |= _pair(names, values)
    return counters


def _pair(names: str, values: str) -> dict[str, int]:
    group, _, titles = names.partition(":")
    numbers = values.partition(":")[2].split()
    return {f"{group}{title}": int(number) for title, number in zip(titles.split(), numbers, strict=True)}
