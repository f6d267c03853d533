# SPDX-License-Identifier: Apache-2.0
"""What it takes to stop a flood of MP_JOIN SYNs that nobody asked for, by where it is stopped."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from emptcp import pybpf
from emptcp.chain.dryrun import Runner
from emptcp.chain.joining import ANSWERS
from emptcp.errors import EmptcpError
from emptcp.hooks import devices, namespaces
from emptcp.lab import namespace, sockets
from emptcp.lab.topology import Lab
from emptcp.packet.build import build
from emptcp.packet.mptcp import MpJoinSyn
from emptcp.pybpf.assembly import answer
from emptcp_bench import nftables, programs
from emptcp_bench.answer import Answer, Row
from emptcp_bench.live import chains
from emptcp_bench.live.attached import Attached, hosts
from emptcp_bench.measure import Spread
from emptcp_bench.processors import TICK, ticks
from emptcp_bench.progress import Progress

FRAMES, QUICK_FRAMES = 1_000_000, 5_000
BATCH = 64
"""Frames that are sent before the receiver has its turn: its queue has room for 256."""

WHEN, DO = "packet_type(types=[mp_join]) and packet_type(types=[syn])", "drop()"
COUNTER = "MPTcpExtMPJoinSynRx"

FLOOR, KERNEL = "an XDP program that drops all", "nobody"
XDP, TC, NFT = "emptcp, XDP", "emptcp, TC", "nftables, ingress"

FIGURES = {"tc_over_xdp": TC, "nftables_over_xdp": NFT, "kernel_over_xdp": KERNEL}
"""What is compared with emptcp at XDP, net of the floor."""

_RULE = "tcp flags & (syn | ack) == syn tcp option mptcp subtype 1 counter drop"

_HOW = """\
MP_JOIN SYNs with a token that nobody knows, each from another port, {frames:,} in a turn, from one host to
the listening MPTCP socket of another over a veth pair; who stops them takes turns. They come from memory
(live frames of BPF_PROG_TEST_RUN), sent and received on one processor; whom the receiver is too slow for are
lost at its device's full queue. `busy` is the time that all processors were busy (proc_stat(5), ticks of
{tick:g} ms) for each frame that was sent: microseconds for one, or seconds for a million. `stopping` is what
that is beyond the floor, which is to send a frame and to drop it at once by an XDP program that does nothing
else, for each frame that arrived; of lost ones the floor has a little more than they took. Stopped by nobody,
the kernel answers each with a RST.{left_out}"""


@dataclass(frozen=True)
class Turn:
    """One turn: microseconds of processor time per frame sent, and the share of the frames that arrived."""

    busy: float
    arrived: float


class Joins(ExitStack):
    """Sends the flood from host a. A context manager."""

    def __init__(self, lab: Lab, port: int) -> None:
        super().__init__()
        self._lab = lab
        path = lab.paths[0]
        self._frame = build(
            src_mac=_mac(path.a.mac),
            dst_mac=_mac(path.b.mac),
            src=ip_address(path.a.address(lab.family)),
            dst=ip_address(path.b.address(lab.family)),
            dport=port,
            flags="S",
            options=[MpJoinSyn(token=0xE0E0E0E0, nonce=1)],
        )
        there = devices.find(namespaces.resolve(lab.a.netns), path.a.device)
        loaded = self.enter_context(pybpf.load_object(programs.object_file("joins"), programs=["joins_xdp"]))
        loaded.maps["joins.bss"].update(bytes(4), struct.pack("<II", there.ifindex, 0))
        self._program = loaded.programs["joins_xdp"]

    def send(self, frames: int) -> None:
        """Send so many frames."""
        self._lab.a.call(
            lambda: self._program.test_run(self._frame, repeat=frames, live_frames=True, batch_size=BATCH)
        )

    def arrived(self) -> float:
        """Return how many frames host b received."""
        return self._lab.b.received()[self._lab.paths[0].b.device] / len(self._frame)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def measure(rounds: int, quick: bool) -> Answer:
    """Measure all ways in turns."""
    frames = QUICK_FRAMES if quick else FRAMES
    found: dict[str, list[Turn]] = {}
    with (
        hosts("joins", rate=None) as lab,
        listening(lab) as port,
        Joins(lab, port) as joins,
        ExitStack() as stack,
    ):
        ways = _ways(lab, stack)
        progress = Progress(rounds * len(ways))
        for _ in range(rounds):
            for name, way in ways.items():
                with way():
                    one = turn(lab, joins, name, frames)
                found.setdefault(name, []).append(one)
                progress.step(f"stopped by {name}")
    left_out = "" if NFT in ways else "\nnftables is left out: this machine has no nft."
    how = _HOW.format(frames=frames, tick=1000 / TICK, left_out=left_out)
    return Answer("early-drop", how, rounds, list(_rows(found)), _figures(found))


def turn(lab: Lab, joins: Joins, name: str, frames: int) -> Turn:
    """Send frames, which ``name`` stops. Raises EmptcpError when that is not what came about."""
    before, arrived, seen = ticks().busy, joins.arrived(), lab.b.counters().get(COUNTER, 0)
    joins.send(frames)
    busy, arrived = ticks().busy - before, joins.arrived() - arrived
    seen = lab.b.counters().get(COUNTER, 0) - seen
    # The hosts say a word to each other now and then, which is counted with what arrived.
    if not arrived or (seen < 0.99 * arrived if name == KERNEL else seen):
        wanted = "all of them" if name == KERNEL else "none"
        raise EmptcpError(
            f"of {arrived:,.0f} SYNs stopped by {name}, {seen:,} came to the socket instead of {wanted}"
        )
    return Turn(1e6 * busy / frames, arrived / frames)


def _ways(lab: Lab, stack: ExitStack) -> dict[str, Callable[[], AbstractContextManager[object]]]:
    """Return who stops the flood, as what does so while it is entered."""
    floor = pybpf.load_program("xdp", answer(ANSWERS["drop"]["xdp"]), name="floor")
    there: dict[str, Callable[[], AbstractContextManager[object]]] = {
        FLOOR: partial(Attached, lab, stack.enter_context(floor), "xdp")
    }
    for name, backend in ((XDP, "xdp"), (TC, "tc")):
        runner = stack.enter_context(Runner([chains.bound(lab, WHEN, DO)], "ingress", backend))
        there[name] = partial(Attached, lab, runner.loaded.program, backend)
    if not nftables.missing():
        there[NFT] = partial(nftables.in_force, lab.b, "ingress", lab.paths[0].b.device, _RULE)
    return there | {KERNEL: ExitStack}


@contextmanager
def listening(lab: Lab) -> Iterator[int]:
    """Listen at host b, which knows host a's link-layer address for its RSTs; yield the port."""
    path = lab.paths[0]
    address = path.a.address(lab.family)
    known = ["neigh", "replace", address, "lladdr", path.a.mac, "dev", path.b.device, "nud", "permanent"]
    namespace.ip(known, netns=lab.b.netns)
    with lab.b.call(lambda: sockets.listen(sockets.wildcard(address))) as listener:
        yield int(listener.getsockname()[1])


def _rows(found: dict[str, list[Turn]]) -> Iterator[Row]:
    for name, turns in found.items():
        yield {
            "stopped by": name,
            "busy, us": Spread.of([one.busy for one in turns]),
            "stopping, us": Spread.of(_stopping(found, name)),
            "arrived, %": 100 * min(one.arrived for one in turns),
        }


def _stopping(found: dict[str, list[Turn]], name: str) -> list[float]:
    return [
        (one.busy - floor.busy) / one.arrived for one, floor in zip(found[name], found[FLOOR], strict=True)
    ]


def _figures(found: dict[str, list[Turn]]) -> dict[str, float | None]:
    """Return what stopping takes over what emptcp takes at XDP; none without it, or below what ticks tell."""
    least = Spread.of(_stopping(found, XDP)).median
    return {
        figure: Spread.of(_stopping(found, name)).median / least if name in found and least > 0 else None
        for figure, name in FIGURES.items()
    }
