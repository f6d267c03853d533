# SPDX-License-Identifier: Apache-2.0
"""What steering costs a guest's stream in throughput, packets merged, against the same stream unsteered."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from emptcp.chain import placement
from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.errors import EmptcpError
from emptcp.hooks import attach, devices, namespaces
from emptcp.lab import traffic
from emptcp.lab.hypervisor import Behind, behind_hypervisor
from emptcp.plugins.catalog import Catalog
from emptcp.policy import file
from emptcp_bench.measure import Spread

MODES = {"nexthop": False, "port": True, "mark": False}
"""Each mode, and whether it is for bridged links."""

SETTLE = 0.03
ENOUGH = 1_000_000
"""Bytes without which a turn says nothing."""
STILL = 2.0
"""Seconds after which a stream that has not sent so many stands still."""
STREAMS = 20
"""Streams of one measurement, at most."""

# To the link that is taken anyway: on another one the stream would begin anew at every turn.
_POLICY = """
table = "bench"
[[policy]]
name = "guest"
hook = "ingress"
dev = "tap0"
do = ["steer(to=[link1], by=hash, mode={mode})"]
"""


@dataclass(frozen=True)
class Steered:
    """One mode: bit/s without and with it, and the ratio of the second to the first, round by round."""

    mode: str
    without: Spread
    steered: Spread
    ratio: Spread


def measure(rounds: int, seconds: float) -> list[Steered]:
    """Measure every mode; a round is four turns of ``seconds``: without, with, with, without."""
    return [_mode(mode, bridged, rounds, seconds) for mode, bridged in MODES.items()]


class _StandsStill(Exception):
    """The stream sends nothing any more."""


def _mode(mode: str, bridged: bool, rounds: int, seconds: float) -> Steered:
    with behind_hypervisor(bridged=bridged, name="bench") as lab, _policy(lab, mode) as policy:
        turns = _rounds(lab, policy, rounds, seconds)
    return Steered(
        mode,
        Spread.of([without for without, _ in turns]),
        Spread.of([steered for _, steered in turns]),
        Spread.of([steered / without for without, steered in turns]),
    )


def _policy(lab: Behind, mode: str) -> Runner:
    """Load the policy with maps of its own: the tables of this machine have no part in it."""
    table = file.loads(_POLICY.format(mode=mode))
    indexes = placement.indexes(namespaces.resolve(lab.hypervisor.netns))
    bound = bind(table, table.policies[0], "ingress", Catalog.of_enabled(), indexes)
    return Runner([bound], "ingress", "tc")


def _rounds(lab: Behind, policy: Runner, rounds: int, seconds: float) -> list[tuple[float, float]]:
    """Return bit/s of each round without and with the policy.

    A stream of tens of Gbit/s by two subflows may stand still for half a minute, steered or not (seen on
    Linux 6.18). Another one takes its place then, and the round begins anew.
    """
    found: list[tuple[float, float]] = []
    for _ in range(STREAMS):
        with _stream(lab), contextlib.suppress(_StandsStill):
            while len(found) < rounds:
                found.append(_round(lab, policy, seconds))
            return found
    raise EmptcpError(f"{STREAMS} streams of the guest stood still", fix="Measure on a machine that idles.")


def _round(lab: Behind, policy: Runner, seconds: float) -> tuple[float, float]:
    namespace = namespaces.resolve(lab.hypervisor.netns)
    device = devices.find(namespace, "tap0")
    before = _rate(lab, seconds)
    attached = attach.attach(namespace, device, "ingress", "tc", policy.loaded.program)
    try:
        steered = (_rate(lab, seconds) + _rate(lab, seconds)) / 2
    finally:
        attached.detach()
    return (before + _rate(lab, seconds)) / 2, steered


def _rate(lab: Behind, seconds: float) -> float:
    """Return bit/s that the guest sends, once what changed has settled.

    A time in which it sends next to nothing, as on a machine that is too busy, goes on.
    """
    time.sleep(SETTLE)
    before, began = lab.guest.sent()["eth0"], time.monotonic()
    while time.monotonic() < began + STILL:
        time.sleep(seconds)
        sent = lab.guest.sent()["eth0"] - before
        if sent >= ENOUGH:
            return 8 * sent / (time.monotonic() - began)
    raise _StandsStill


@contextlib.contextmanager
def _stream(lab: Behind) -> Iterator[None]:
    """Let the guest send for as long as the block lasts."""
    before, deadline = lab.guest.sent()["eth0"], time.monotonic() + 10
    traffic.start(lab.guest, lab.peer, lab.addresses[0])
    while lab.guest.sent()["eth0"] < before + 10 * ENOUGH:
        if time.monotonic() > deadline:
            raise EmptcpError("the guest's stream did not begin", fix="See: emptcp doctor")
        time.sleep(0.05)
    yield
    for host in (lab.guest, lab.peer):
        host.end_children()
