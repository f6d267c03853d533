# SPDX-License-Identifier: Apache-2.0
"""A stream from host a to host b of a lab, and what it carries by each path."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from emptcp.chain import apply
from emptcp.hooks import namespaces
from emptcp.lab import traffic
from emptcp.lab.meter import Meter
from emptcp.lab.path import Path
from emptcp.lab.topology import Lab, two_hosts
from emptcp.mptcp.sockets import SubflowReader
from emptcp.policy import file

MBIT = 125_000
"""Bytes per second."""

SETTLE = 1.5
"""Seconds after which two paths of the lab are full."""

RATE, RTT = 100e6, 0.020
TABLE = "accuracy"


@contextmanager
def hosts(what: str, rate: float = RATE) -> Iterator[Lab]:
    """Two hosts with two paths of so many bit/s and 20 ms; without netem, a process delays the frames."""
    paths = [Path(rate=rate, rtt=RTT), Path(rate=rate, rtt=RTT)]
    with two_hosts(paths, name=f"acc{os.getpid()}{what}") as lab:
        yield lab


class Stream:
    """A stream that lasts as long as the context."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._ends = ExitStack()

    def __enter__(self) -> Stream:
        sender = traffic.start(self.lab.a, self.lab.b, self.lab.paths[0].b.address(4))
        self._ends.callback(sender.wait, 5)
        self._ends.callback(sender.terminate)
        self._meter = self._ends.enter_context(Meter(self.lab.a))
        self._reader = self._ends.enter_context(SubflowReader())
        time.sleep(SETTLE)
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def rates(self, seconds: float) -> list[float]:
        """Return what each path delivers meanwhile, in Mbit/s of TCP payload."""
        before, began = self._acked(), time.monotonic()
        time.sleep(seconds)
        after, ended = self._acked(), time.monotonic()
        return [(new - old) / (ended - began) / MBIT for old, new in zip(before, after, strict=True)]

    def share(self, seconds: float) -> float:
        """Return the second path's share of what is delivered meanwhile."""
        first, second = self.rates(seconds)
        return second / (first + second)

    def waiting(self) -> list[int]:
        """Return the bytes of each path that a socket was given and its peer has not acknowledged."""
        found = self._reader.read(namespaces.resolve(self.lab.a.netns))
        return [
            sum(one.write_seq - one.snd_una & 0xFFFFFFFF for one in found if str(one.local) == address)
            for address in (path.a.address(4) for path in self.lab.paths)
        ]

    def _acked(self) -> list[int]:
        found = self._meter.read()
        return [sum(one.acked for one in found if one.local == path.a.address(4)) for path in self.lab.paths]


@contextmanager
def in_force(
    lab: Lab, hook: str, do: str, dev: str = "path2", when: str = "", at: str = "a"
) -> Iterator[None]:
    """Keep one policy in force at a host."""
    put(lab, hook, do, dev, when, at)
    try:
        yield
    finally:
        apply.remove(TABLE)


def put(lab: Lab, hook: str, do: str, dev: str = "path2", when: str = "", at: str = "a") -> None:
    """Make the one policy what is asked for."""
    chosen = f'when = "{when}"\n' if when else ""
    hooks = ", ".join(f'"{one}"' for one in hook.split())
    text = (
        f'table = "{TABLE}"\n[[policy]]\nname = "p"\nhook = [{hooks}]\ndev = "{dev}"\n{chosen}do = ["{do}"]\n'
    )
    apply.apply(file.loads(text), (lab.a if at == "a" else lab.b).netns)
