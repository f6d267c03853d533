# SPDX-License-Identifier: Apache-2.0
"""Tells what happens in a run while it happens: what was built, a line per second, the policy's moments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path as File
from typing import TextIO

from emptcp.lab.measure import Row
from emptcp.lab.path import LabPath
from emptcp.lab.scenario import APPLIED, POLICY, Moment, Timeline
from emptcp.lab.topology import Lab

BAR = 20
LONGEST_SHOWN = 20


class Progress:
    """Prints to ``out``; bars are made of what its encoding has."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._paths: Sequence[LabPath] = ()
        self._block = "█" if "utf" in (out.encoding or "").lower() else "#"
        self._meaning = ("", "")

    def begin(self, lab: Lab, timeline: Timeline, policy: File | None) -> None:
        """Say what stands and what is going to happen."""
        self._paths = lab.paths
        self._say(f"Lab {lab.name}: hosts a and b, two network namespaces, linked by {lab.link}.")
        for path in lab.paths:
            ends = f"{path.a.address(lab.family)} > {path.b.address(lab.family)}"
            self._say(f"  {path.name}  {path.rate / 1e6:g} Mbit/s  RTT {path.rtt * 1e3:g} ms  {ends}")
        self._say(f"Host a sends to host b over one MPTCP connection for {timeline.end:g} s.")
        if policy is not None:
            self._announce(timeline, policy)
        self._say("")

    def second(self, row: Row) -> None:
        """One line: a bar and Mbit/s per path, and who is backup."""
        bars = "   ".join(self._bar(path, row.mbit[path.name]) for path in self._paths)
        backup = "".join(f"   {name} is backup" for name, is_backup in row.backup.items() if is_backup)
        self._say(f"{row.end:4.0f} s  {bars} Mbit/s{backup}")

    def changing(self, name: str, at: float) -> None:
        """One line: the policy is coming or going."""
        verb, meaning = ("applying", self._meaning[0]) if name == APPLIED else ("removing", self._meaning[1])
        self._say(f"{at:6.1f} s  {verb} the policy{meaning}")

    def changed(self, moment: Moment) -> None:
        """One line: it came or went."""
        self._say(f"{moment.done:6.1f} s  policy {moment.name}")

    def _announce(self, timeline: Timeline, policy: File) -> None:
        last = self._paths[-1].name
        if policy == POLICY:
            self._meaning = (f": {last} becomes backup", f": {last} is given back")
        self._say(
            f"At {timeline.apply:g} s a policy is applied at host a, at {timeline.remove:g} s it is removed:"
        )
        self._say(f"  {policy}")
        lines = [line for line in policy.read_text().splitlines() if not line.startswith("#")]
        if len(lines) <= LONGEST_SHOWN:
            for line in lines:
                self._say(f"    {line}".rstrip())

    def _bar(self, path: LabPath, mbit: float) -> str:
        full = min(BAR, math.floor(mbit * 1e6 / path.rate * BAR + 0.5))
        return f"{path.name} {self._block * full:<{BAR}} {mbit:6.1f}"

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)
