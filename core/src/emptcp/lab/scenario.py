# SPDX-License-Identifier: Apache-2.0
"""Two paths, one MPTCP connection, and a policy that comes into force in mid-transfer and goes again.

What applies policies stands above the lab and is handed in as ``Steering``; without one the same traffic runs
untouched, to compare with.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Protocol

from emptcp.errors import EmptcpError
from emptcp.lab import measure, traffic
from emptcp.lab.measure import Row, Sample
from emptcp.lab.path import LabPath
from emptcp.lab.recorder import Recorder
from emptcp.lab.topology import Lab

POLICY = File(__file__).parent / "policies" / "two-path.toml"
APPLIED, REMOVED = "applied", "removed"
SHORTEST = 6.0


class Steering(Protocol):
    """Applies and removes policies. Both return when that is in force, and raise EmptcpError if refused."""

    def check(self, file: File, netns: str) -> None:
        """Refuse what ``apply`` would refuse, and change nothing."""

    def apply(self, file: File, netns: str) -> None:
        """Make the file's table be in force in a namespace, given by its name."""

    def remove(self, file: File, netns: str) -> None:
        """Take the file's table out of force there, and its effects back."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """When what happens, in seconds since the start: the policy comes, the policy goes, the run ends."""

    apply: float
    remove: float
    end: float

    @staticmethod
    def lasting(seconds: float) -> Timeline:
        """A run of so many seconds: policy from 3 tenths to 13 twentieths of it (6 s and 13 s of 20)."""
        if seconds < SHORTEST:
            raise EmptcpError(
                f"a run of {seconds:g} s is too short to see anything",
                fix=f"Give it {SHORTEST:g} s or more; TCP needs a second or two to get going.",
            )
        return Timeline(seconds * 0.30, seconds * 0.65, seconds)


@dataclass(frozen=True, slots=True)
class Moment:
    """A change of policy: ``applied`` or ``removed``, when it was begun and when the command was done (s).

    It takes effect at some time between the two; marks are set at the first, which never comes too late.
    """

    name: str
    begun: float
    done: float


@dataclass(slots=True)
class Run:
    """A run and what was measured in it. ``watched`` is the path that the shipped policy spares."""

    link: str
    family: int
    paths: Sequence[LabPath]
    timeline: Timeline
    policy: File | None
    samples: list[Sample] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    subflows: dict[str, str] = field(default_factory=dict)

    @property
    def watched(self) -> str:
        """Name of the path in question: the last one."""
        return self.paths[-1].name

    @property
    def end(self) -> float:
        """When the last sample was taken, in seconds."""
        return self.samples[-1].at

    @property
    def shipped(self) -> bool:
        """Whether the policy is the one that comes with the scenario, whose effect is known."""
        return self.policy == POLICY

    def moment(self, name: str) -> Moment | None:
        """The change of this name, if it took place."""
        return next((moment for moment in self.moments if moment.name == name), None)


class Audience(Protocol):
    """Is told what happens while it happens."""

    def second(self, row: Row) -> None:
        """Another second is over."""

    def changing(self, name: str, at: float) -> None:
        """The policy is being applied or removed from now on."""

    def changed(self, moment: Moment) -> None:
        """The policy was applied or removed."""


def run_two_path(
    lab: Lab, timeline: Timeline, audience: Audience, steering: Steering | None, policy: File = POLICY
) -> Run:
    """Run the scenario in a lab that stands; takes as long as the timeline says.

    Whatever ends it, the policy is removed. Raises EmptcpError when the policy is refused or traffic fails.
    """
    if steering is not None:
        steering.check(policy, lab.a.netns)
    run = Run(lab.link, lab.family, lab.paths, timeline, policy if steering else None)
    with Recorder(lab.a, lab.paths, lab.family) as recorder:
        sender = traffic.start(lab.a, lab.b, lab.paths[0].b.address(lab.family))
        recorder.begin()
        run.samples, run.subflows = recorder.samples, recorder.subflows
        clock = _Clock(recorder, audience, sender)
        clock.until(timeline.apply)
        with _in_force(steering, policy, lab.a.netns, run, clock):
            # Where loading takes long, the policy still gets half of its planned time, and so does the rest.
            clock.until(max(timeline.remove, clock.now + (timeline.remove - timeline.apply) / 2))
        clock.until(max(timeline.end, clock.now + (timeline.end - timeline.remove) / 2))
        clock.stop()
    return run


@contextlib.contextmanager
def _in_force(steering: Steering | None, policy: File, netns: str, run: Run, clock: _Clock) -> Iterator[None]:
    if steering is None:
        yield
        return
    run.moments.append(clock.timed(APPLIED, lambda: steering.apply(policy, netns)))
    try:
        yield
    finally:
        run.moments.append(clock.timed(REMOVED, lambda: steering.remove(policy, netns)))


class _Clock:
    """Lets time pass and tells the audience of every second."""

    def __init__(self, recorder: Recorder, audience: Audience, sender: subprocess.Popen[str]) -> None:
        self._recorder = recorder
        self._audience = audience
        self._sender = sender
        self._told = 0

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._recorder.now

    def until(self, end: float) -> None:
        """Wait until so many seconds after the start."""
        while (left := end - self.now) > 0:
            time.sleep(min(left, 0.05))
            self._check()
            self._tell()

    def stop(self) -> None:
        """End the recording, with a last sample, and tell the seconds that were not told yet."""
        self._recorder.end()
        self._check()
        self._tell()

    def timed(self, name: str, change: Callable[[], None]) -> Moment:
        """Make a change, meanwhile tell of the seconds that pass, and tell when it was done."""
        begun = self.now
        self._audience.changing(name, begun)
        with ThreadPoolExecutor(max_workers=1) as worker:
            work = worker.submit(change)
            while not work.done():
                wait([work], timeout=0.05)
                self._tell()
        work.result()
        moment = Moment(name, begun, self.now)
        self._audience.changed(moment)
        return moment

    def _check(self) -> None:
        self._recorder.check()
        if self._sender.poll() is not None:
            said = self._sender.communicate()[1].strip().splitlines() or ["the connection was closed"]
            raise EmptcpError(f"the transfer ended after {self.now:.1f} s: {said[-1]}")

    def _tell(self) -> None:
        samples = self._recorder.samples
        while samples[-1].at >= self._told + 1:
            self._audience.second(measure.row(samples, self._told, self._told + 1))
            self._told += 1
