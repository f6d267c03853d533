# SPDX-License-Identifier: Apache-2.0
"""What steering costs a guest's stream in throughput, packets merged, against the same stream unsteered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from emptcp.chain import apply
from emptcp.errors import EmptcpError
from emptcp.lab import traffic
from emptcp.lab.hypervisor import Behind, behind_hypervisor
from emptcp.policy import file
from emptcp_bench.measure import Spread

MODES = {"nexthop": False, "port": True, "mark": False}
"""Each mode, and whether it is for bridged links."""

SETTLE = 0.2
TABLE = "bench-steer"

_POLICY = """
table = "{table}"
[[policy]]
name = "guest"
hook = "ingress"
dev = "tap0"
do = ["steer(to=[link1, link2], by=hash, mode={mode})"]
"""


@dataclass(frozen=True)
class Steered:
    """One mode: bit/s without and with it, and the ratio of the second to the first, turn by turn."""

    mode: str
    without: Spread
    steered: Spread
    ratio: Spread


def measure(rounds: int, seconds: float) -> list[Steered]:
    """Measure every mode. A round is a turn of ``seconds`` without the policy, one with it, one without."""
    return [_mode(mode, bridged, rounds, seconds) for mode, bridged in MODES.items()]


def _mode(mode: str, bridged: bool, rounds: int, seconds: float) -> Steered:
    with behind_hypervisor(bridged=bridged, name="bench") as lab:
        traffic.start(lab.guest, lab.peer, lab.addresses[0])
        _begun(lab)
        turns = list(_turns(lab, mode, rounds, seconds))
    return Steered(
        mode,
        Spread.of([without for without, _ in turns]),
        Spread.of([steered for _, steered in turns]),
        Spread.of([steered / without for without, steered in turns]),
    )


def _turns(lab: Behind, mode: str, rounds: int, seconds: float) -> Iterator[tuple[float, float]]:
    """Yield bit/s without, the mean of before and after, and with the policy."""
    table = file.loads(_POLICY.format(table=TABLE, mode=mode))
    for _ in range(rounds):
        before = _rate(lab, seconds)
        try:
            apply.apply(table, lab.hypervisor.netns)
            steered = _rate(lab, seconds)
        finally:
            apply.remove(TABLE)
        yield (before + _rate(lab, seconds)) / 2, steered


def _rate(lab: Behind, seconds: float) -> float:
    """Return bit/s that the guest sends, once what changed has settled."""
    time.sleep(SETTLE)
    sent, began = lab.guest.sent()["eth0"], time.monotonic()
    time.sleep(seconds)
    return 8 * (lab.guest.sent()["eth0"] - sent) / (time.monotonic() - began)


def _begun(lab: Behind) -> None:
    deadline = time.monotonic() + 10
    while lab.guest.sent()["eth0"] < 10_000_000:
        if time.monotonic() > deadline:
            raise EmptcpError("the guest's stream did not begin", fix="See: emptcp doctor")
        time.sleep(0.05)
