# SPDX-License-Identifier: Apache-2.0
"""What each selector and each actor costs alone, on a packet that it acts on and on one that it leaves alone.

A stage is measured as the difference of two chains, with it and without it, that take turns. What changes a
packet has a stage behind it that brings the packet back, in both chains.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache

from emptcp import pybpf
from emptcp.chain import flows
from emptcp.chain.bind import bind
from emptcp.chain.connections import Connections
from emptcp.chain.dryrun import Runner
from emptcp.chain.plan import BoundPolicy, Stage
from emptcp.control.duty import decode
from emptcp.packet.decode import decode as decoded
from emptcp.plugins.catalog import Catalog
from emptcp.policy import file, model
from emptcp_bench import programs
from emptcp_bench.answer import Answer, Row
from emptcp_bench.measure import COUNTED, TURNS, Run, Spread, Trial, in_turns
from emptcp_bench.ops_table import ADDRESSES, DATA, OPS, Op
from emptcp_bench.progress import Progress

REPEAT = 10_000
QUICK_REPEAT = 50
PLACES = [(backend, engine) for backend in ("xdp", "tc") for engine in ("fused", "tail")]
FAMILIES = (4, 6)

_HOW = """\
Nanoseconds per packet of each stage alone: of a policy with the stage, less those of the same policy without
it. {turns} turns of {repeat} packets per program and round by BPF_PROG_TEST_RUN, of which the {counted}
quickest count. `acts`: a packet that a selector matches or an actor acts on; `passes`: an MPTCP packet that
it leaves alone. Behind selectors stands an actor that rewrites the window; a selector that does not match is
compared with one that never does. Behind what changes a packet, or acts once per subflow, stands a stage that
brings the packet and the subflow's state back. What core does for every packet, the look-up of a subflow's
entry included if no other stage asks for it, is `(policy)`: a policy without selector whose actor does
nothing, less an empty program."""

_HEADERS, _MASK = 120, struct.pack("<I", 1)
_ETHERNET = 14
_RECORD = "record('packets')"

Key = tuple[str, str, str]
"""A stage, what it makes of the packet, and the family."""


@dataclass(frozen=True)
class Case:
    """A stage and a packet. Both programs are given the packet; what they differ by is the stage."""

    op: Op
    family: int
    acts: bool
    packet: bytes
    runner: Runner
    without: Runner


@contextmanager
def cases(backend: str, engine: str) -> Iterator[list[Case]]:
    """Load every stage that works on a back-end, and what it is compared with."""
    with ExitStack() as stack:

        @cache
        def loaded(policy: BoundPolicy) -> Runner:
            return stack.enter_context(Runner([policy], "ingress", backend, engine=engine))

        yield [
            _case(op, family, acts, loaded)
            for op in OPS
            if backend in op.backends
            for family in FAMILIES
            for acts in ((True, False) if op.passes else (True,))
        ]


def _case(op: Op, family: int, acts: bool, loaded: Callable[[BoundPolicy], Runner]) -> Case:
    packet = (op.acts if acts or not op.passes else op.passes).build(family)
    behind = _behind(op, packet) if acts or op.kind == "selector" else ()
    runner = loaded(policy_of(op, family, behind))
    for earlier in op.earlier:
        runner.run(earlier.build(family))
    if op.tokens:
        _tell_tokens(runner)
    return Case(op, family, acts, packet, runner, loaded(_without(op, acts, behind)))


def policy_of(op: Op, family: int, behind: Sequence[Stage]) -> BoundPolicy:
    """Return a policy with the stage, and the stages ``behind`` it."""
    source, target = ADDRESSES[family]
    text = op.text.format(src=source, dst=target)
    when, do = (f'when = "{text}"', _RECORD) if op.kind == "selector" else ("", text)
    table = file.loads(
        f'table = "bench"\n[[policy]]\nname = "ops"\nhook = "ingress"\ndev = "x"\n{when}\ndo = ["{do}"]\n'
    )
    bound = bind(table, table.policies[0], "ingress", Catalog.of_enabled(), lambda _name: 1)
    own = () if op.kind == "selector" else bound.actors
    return replace(bound, actors=(*own, *behind))


def _without(op: Op, acts: bool, behind: Sequence[Stage]) -> BoundPolicy:
    """Return the policy without the stage; in the place of a selector that misses is one that always does."""
    never = () if acts or op.kind == "actor" else (programs.stage("selector", "never", source="ops"),)
    when = model.Select(model.StageSpec("selector", "never")) if never else None
    actors = tuple(behind) or (programs.stage("actor", "nothing", source="ops"),)
    return BoundPolicy("bench", "without", when, never, actors)


def _behind(op: Op, packet: bytes) -> tuple[Stage, ...]:
    if op.kind == "selector":
        return (programs.stage("actor", "toggle_window", _MASK),)
    forget = (programs.stage("actor", "forget", source="ops", flow=True),) if op.once else ()
    return (*forget, *((_restoring(packet),) if op.changes else ()))


def _restoring(packet: bytes) -> Stage:
    found = decoded(packet)
    headers = packet[_ETHERNET : len(packet) - len(found.payload)]
    parameters = struct.pack("<II", len(packet), len(headers)) + headers.ljust(_HEADERS, b"\0")
    return programs.stage("actor", "restore", parameters, source="ops")


def _tell_tokens(runner: Runner) -> None:
    """Do what ``emptcp run`` does when keys were seen: work out the tokens of the connection."""
    maps, told = runner.shared.cores(), list[bytes]()
    with pybpf.RingBuffer(maps["emptcp_events"](), told.append) as ring:
        ring.poll(0)
    with Connections(maps["emptcp_flows"](), maps["emptcp_connections"]()) as known:
        for record in told:
            event = decode(record, {"core_connection": "core"})
            if event is not None and event.endpoints:
                known.see_keys(flows.key(*event.endpoints))


def measure(rounds: int, quick: bool) -> Answer:
    """Measure every stage at every place, for IPv4 and IPv6; ``quick``: at one place."""
    places, repeat = (PLACES[2:3], QUICK_REPEAT) if quick else (PLACES, REPEAT)
    progress = Progress(rounds * len(places))
    found: dict[Key, dict[str, Spread]] = {}
    for place in places:
        for key, net in _at(*place, rounds, repeat, progress).items():
            found.setdefault(key, {})[_head(place)] = net
    how = _HOW.format(turns=TURNS, counted=COUNTED, repeat=repeat)
    rows: list[Row] = [
        {
            "stage": stage,
            "packet": packet,
            "family": family,
            **{_head(place): found[stage, packet, family].get(_head(place)) for place in places},
        }
        for stage, packet, family in found
    ]
    return Answer("ops", how, rounds, rows)


def _head(place: tuple[str, str]) -> str:
    return f"{' '.join(place)}, ns"


def _at(backend: str, engine: str, rounds: int, repeat: int, progress: Progress) -> dict[Key, Spread]:
    """Return the nanoseconds of each stage, by its text and what it makes of the packet."""
    with cases(backend, engine) as given, ExitStack() as stack:
        trials = dict(_of_nothing(stack, backend, engine))
        for n, case in enumerate(given):
            trials["with", str(n)] = Trial(case.runner.loaded.program, case.packet)
            trials["without", str(n)] = Trial(case.without.loaded.program, case.packet)
        times = in_turns(trials, rounds, repeat, lambda: progress.step(f"at {backend}, {engine}"))
    found: dict[Key, Spread] = {}
    for family in map(str, FAMILIES):
        found["(policy)", "acts", f"IPv{family}"] = _net(times["nothing", family], times["empty", family])
    for n, case in enumerate(given):
        key = (case.op.title, "acts" if case.acts else "passes", f"IPv{case.family}")
        found[key] = _net(times["with", str(n)], times["without", str(n)])
    return found


def _of_nothing(stack: ExitStack, backend: str, engine: str) -> Iterator[tuple[Run, Trial]]:
    """Load the empty program, and the policy that does nothing."""
    empty = stack.enter_context(programs.empty(backend))
    policy = BoundPolicy("bench", "nothing", None, (), (programs.stage("actor", "nothing", source="ops"),))
    nothing = stack.enter_context(Runner([policy], "ingress", backend, engine=engine))
    for family in FAMILIES:
        yield ("empty", str(family)), Trial(empty, DATA.build(family))
        yield ("nothing", str(family)), Trial(nothing.loaded.program, DATA.build(family))


def _net(one: Sequence[float], other: Sequence[float]) -> Spread:
    return Spread.of([mine - theirs for mine, theirs in zip(one, other, strict=True)])
