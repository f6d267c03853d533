# SPDX-License-Identifier: Apache-2.0
"""Runs a use case: each point of its grid with and without emptcp, in turns, round after round.

What applies policies and runs controllers is handed in as ``Force``: it stands above the lab.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from statistics import median

from emptcp.lab import namespace, tenants
from emptcp.lab.grid import BACKUP, COMPLETION, DISJOINT, GOODPUT, SPARED, TCP, Point, UseCase
from emptcp.lab.load import Load
from emptcp.lab.ratio import Ratio, compared
from emptcp.lab.topology import Lab, two_hosts

OURS = "emptcp"
WARM = 2.0
"""Seconds that are left out at the beginning of a stream: slow start, and a controller's first looks."""
PAUSE = 0.3
"""Seconds between two measurements, in which what is left of the last one's connections goes."""

Force = Callable[..., AbstractContextManager[None]]
"""Keeps a policy file in force in a lab, from when its controllers run, at host a or on the hypervisor. It is
given the lab and the file."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a point of the grid gave: by setting a value for each round; ``OURS`` is one of them."""

    point: Point
    values: dict[str, list[float]]

    def against(self, setting: str) -> Ratio:
        """Compare emptcp with one of the others."""
        return compared(self.values[setting], self.values[OURS], more=self.point.metric.more)


@dataclass(frozen=True, slots=True)
class Plan:
    """Of which points to measure how many rounds, of so many seconds each."""

    points: Sequence[Point]
    rounds: int
    seconds: float


def compare(
    use_case: UseCase, plan: Plan, force: Force, link: str, say: Callable[[str], None]
) -> Iterator[tuple[str, Measured]]:
    """Measure the points one by one; yield the kind of link, and what was found."""
    settings = (*use_case.against, OURS)
    for point in plan.points:
        say(point.name)
        values: dict[str, list[float]] = {setting: [] for setting in settings}
        made = (
            _behind(use_case, point, force, say) if use_case.guest else _between(use_case, point, force, link)
        )
        with made as (kind, measure):
            for number in range(plan.rounds):
                start = number % len(settings)
                for setting in settings[start:] + settings[:start]:
                    time.sleep(PAUSE)
                    values[setting].append(measure(setting, plan.seconds))
                    say(f"  {setting}: {values[setting][-1]:.2f} {point.metric.unit}")
            yield kind, Measured(point, values)


@contextmanager
def _between(
    use_case: UseCase, point: Point, force: Force, link: str
) -> Iterator[tuple[str, Callable[[str, float], float]]]:
    """Make two hosts, and what measures a setting between them, for so many seconds."""
    with two_hosts(point.paths, name=f"case{os.getpid()}", link=link) as lab:
        lab.b.set("net.ipv4.tcp_rmem", f"4096 131072 {point.receive_buffer}")
        yield (
            lab.link,
            lambda setting, seconds: _measure(lab, point, setting, use_case, force, seconds),
        )


@contextmanager
def _behind(
    use_case: UseCase, point: Point, force: Force, say: Callable[[str], None]
) -> Iterator[tuple[str, Callable[[str, float], float]]]:
    """Make a guest behind a hypervisor, and what measures a setting there, for so many seconds."""
    with tenants.guest(point, f"case{os.getpid()}") as guest:

        def measure(setting: str, seconds: float) -> float:
            if setting != OURS:
                return guest.mean_of_outcomes(WARM, seconds, say)
            guest.lay(guest.worst)
            with force(guest.lab, use_case.policy_of(point)):
                return guest.goodput(WARM, seconds)

        yield "tbf", measure


def _measure(lab: Lab, point: Point, setting: str, use_case: UseCase, force: Force, seconds: float) -> float:
    announced = _announce(lab, setting)
    if setting == OURS:
        with force(lab, use_case.policy_of(point)):
            return _value(point, lab, seconds, use_case.begins or announced + 1)
    return _value(point, lab, seconds, 0 if setting == TCP else announced + 1)


def _announce(lab: Lab, setting: str) -> int:
    """Let host b announce its addresses as the setting has it; return how many."""
    lines = ["mptcp endpoint flush"]
    for path in lab.paths[1:]:
        if setting == DISJOINT and path is lab.paths[1]:
            continue
        backup = " backup" if setting == BACKUP and path is lab.paths[-1] else ""
        address = path.b.address(lab.family)
        lines.append(f"mptcp endpoint add {address} dev {path.b.device} signal{backup}")
    namespace.ip_batch(lines, netns=lab.b.netns)
    return len(lines) - 1


def _value(point: Point, lab: Lab, seconds: float, subflows: int) -> float:
    """Measure once; without ``subflows`` by plain TCP."""
    with Load(lab, point.traffic, subflows=subflows) as load:
        outcome = load.run(WARM, seconds)
    if point.metric == GOODPUT:
        return outcome.mbit
    if point.metric == COMPLETION:
        return median(outcome.completions) * 1e3
    assert point.metric == SPARED
    return 100 * outcome.by_path[lab.paths[0].name] / max(1, sum(outcome.by_path.values()))
