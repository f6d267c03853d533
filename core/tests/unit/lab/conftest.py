# SPDX-License-Identifier: Apache-2.0
"""A run as a machine without noise would measure it."""

from __future__ import annotations

from pathlib import Path as File

from emptcp.lab.measure import Sample
from emptcp.lab.path import Path, place_all
from emptcp.lab.scenario import APPLIED, POLICY, REMOVED, Moment, Run, Timeline

MBIT = 1e6 / 8


def made_up_run(
    *,
    before: tuple[float, float] = (95, 95),
    during: tuple[float, float] = (95, 0),
    after: tuple[float, float] = (95, 95),
    policy: File | None = POLICY,
    paths: tuple[Path, Path] = (Path(rtt=0.020), Path(rtt=0.050)),
) -> Run:
    """20 s of two paths at these Mbit/s; the policy in force from 6 to 13 s."""
    timeline = Timeline.lasting(20)
    run = Run("relay", 4, place_all(paths), timeline, policy)
    sent = [0.0, 0.0]
    for tick in range(201):
        at = tick / 10
        rates = before if at <= timeline.apply else during if at <= timeline.remove else after
        if tick:
            sent = [bytes_ + rate * MBIT / 10 for bytes_, rate in zip(sent, rates, strict=True)]
        backup = {"path1": False, "path2": policy is not None and timeline.apply < at <= timeline.remove}
        acked = {"path1": round(sent[0]), "path2": round(sent[1])}
        run.samples.append(Sample(at, acked, backup, {"path1": 0.02, "path2": 0.05}))
    if policy is not None:
        run.moments = [
            Moment(APPLIED, timeline.apply, timeline.apply + 0.2),
            Moment(REMOVED, timeline.remove, timeline.remove + 0.1),
        ]
    run.subflows = {"path1": "10.0.1.1:1 > 10.0.1.2:2", "path2": "10.0.2.1:3 > 10.0.2.2:2"}
    return run
