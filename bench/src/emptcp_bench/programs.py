# SPDX-License-Identifier: Apache-2.0
"""The programs that are compared: hand-written ones, and chains as ``emptcp apply`` would attach them."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from emptcp import pybpf
from emptcp.chain.dryrun import Runner
from emptcp.chain.joining import ANSWERS
from emptcp.chain.plan import BoundPolicy, FragmentRef, Stage
from emptcp.errors import EmptcpError
from emptcp.policy import model
from emptcp.pybpf.assembly import answer
from emptcp_bench import packets

CHAIN_ACTORS = (1, 3, 7, 15)
"""Actors behind the selector in chains of 2, 4, 8 and 16 stages."""

HAND_WRITTEN = (
    "empty",
    "look_up",
    "bare_flow_1",
    "bare_flows_1",
    "bare_flows_7",
    "whole_flow_1",
    *(f"{kind}_flows_{actors}" for kind in ("whole", "calls") for actors in CHAIN_ACTORS),
)
"""Functions of monolith.bpf.c, without the back-end."""

PAPER = {"xdp": CHAIN_ACTORS, "tc": (1, 3)}
"""By back-end, for how many actors paper.bpf.c has a chain: skb->cb has room for five entries."""


@dataclass(frozen=True)
class Chain:
    """A chain that emptcp makes: its selector, how many windows it rewrites, whether an actor has a state."""

    selector: str
    actors: int
    state: bool = False
    engine: str = "fused"


CHAINS = {
    "fused_flow_1": Chain("is_flow", 1),
    "fused_state_1": Chain("in_flows", 1, state=True),
    **{
        f"{engine}_flows_{actors}": Chain("in_flows", actors, engine=engine)
        for engine in ("fused", "tail")
        for actors in CHAIN_ACTORS
    },
}

_MASKS = tuple(1 << bit for bit in range(max(CHAIN_ACTORS)))
_FLOWS_MAP, _PROGRAMS_MAP = "bench_flows", "bench_programs"
_LAST, _IMMEDIATE = 255, 0x40


def names(backend: str) -> list[str]:
    """Return the names of all programs that there are for a back-end."""
    return [*HAND_WRITTEN, *(f"paper_flows_{actors}" for actors in PAPER[backend]), *CHAINS]


@contextmanager
def loaded(backend: str, wanted: Collection[str] = ()) -> Iterator[dict[str, pybpf.Program]]:
    """Load programs for a back-end, ``xdp`` or ``tc``, with the same flows; yield them by name.

    Those written by hand are always among them; of the others those that are ``wanted``, or all.
    """
    with ExitStack() as stack:
        found = _hand_written(stack, backend)
        wanted = wanted or names(backend)
        for actors in PAPER[backend]:
            if f"paper_flows_{actors}" in wanted:
                found[f"paper_flows_{actors}"] = _paper(stack, backend, actors)
        for name, chain in CHAINS.items():
            if name not in wanted:
                continue
            runner = stack.enter_context(Runner([policy_of(chain)], backend=backend, engine=chain.engine))
            if chain.selector == "in_flows":
                _fill(runner.map(_FLOWS_MAP))
            found[name] = runner.loaded.program
        yield found


def empty(backend: str) -> pybpf.Program:
    """Load the program that does nothing, in the way that chains are loaded: one can take another's place."""
    kind = {"xdp": "xdp", "tc": "sched_cls"}[backend]
    return pybpf.load_program(kind, answer(ANSWERS["pass"][backend]), name="empty")


def _hand_written(stack: ExitStack, backend: str) -> dict[str, pybpf.Program]:
    wanted = {name: f"{name}_{backend}" for name in HAND_WRITTEN}
    written = stack.enter_context(pybpf.load_object(object_file("monolith"), programs=wanted.values()))
    _fill(written.maps[_FLOWS_MAP])
    settings = packets.wanted() + struct.pack(f"<{len(_MASKS)}I", *_MASKS)
    written.maps["monolith.bss"].update(bytes(4), settings)
    return {name: written.programs[function] for name, function in wanted.items()}


def _paper(stack: ExitStack, backend: str, actors: int) -> pybpf.Program:
    """Load one of the paper's chains: its root, and the stages in the program array."""
    root, *stages = (f"paper_{name}_{backend}" for name in (f"flows_{actors}", "select", "toggle"))
    written = stack.enter_context(pybpf.load_object(object_file("paper"), programs=(root, *stages)))
    _fill(written.maps[_FLOWS_MAP])
    select, toggle = (written.programs[name] for name in stages)
    array = written.maps[_PROGRAMS_MAP]
    for place in range(1 + actors):
        program = toggle if place else select
        array.update(struct.pack("<I", place), struct.pack("<I", program.fd))
    entries = [struct.pack("<BBH", 1, 0, 0)]
    for number, mask in enumerate(_MASKS[:actors]):
        following = number + 2 if number + 1 < actors else _LAST
        entries.append(struct.pack("<BBH", following, _IMMEDIATE | number, mask))
    written.maps[".data.chain"].update(bytes(4), b"".join(entries).ljust(4 * 16, b"\0"))
    return written.programs[root]


def object_file(name: str) -> Path:
    """Return the path of an object of this package. Raises EmptcpError when it is not compiled."""
    path = Path(str(files("emptcp_bench") / f"{name}.bpf.o"))
    if not path.exists():
        fix = "Install emptcp-bench from a wheel, or run `make setup`."
        raise EmptcpError(f"the compiled programs {path} are missing", fix=fix)
    return path


def _fill(flows: pybpf.Map) -> None:
    flows.update_batch([(packets.key(number), struct.pack("<I", number)) for number in range(packets.FLOWS)])


def policy_of(chain: Chain) -> BoundPolicy:
    """Return a chain as a policy."""
    wanted = packets.wanted() if chain.selector == "is_flow" else b""
    masks = [struct.pack("<I", mask) for mask in _MASKS[: chain.actors]]
    return BoundPolicy(
        table="bench",
        name=chain.selector,
        when=model.Select(model.StageSpec("selector", chain.selector)),
        selectors=(stage("selector", chain.selector, wanted),),
        actors=tuple(_actors(masks, chain.state)),
    )


def _actors(masks: Sequence[bytes], state: bool) -> Iterator[Stage]:
    for number, mask in enumerate(masks, 1):
        yield stage("actor", "toggle_window", mask, f"toggle_window#{number}")
    if state:
        yield stage("actor", "count_packets", b"", state_size=8)


def stage(
    kind: str,
    name: str,
    parameters: bytes = b"",
    label: str = "",
    state_size: int = 0,
    source: str = "stages",
    flow: bool = False,
    key: bool = False,
) -> Stage:
    """Return a stage of this package's ``source``, bound; it reads the flow's entry, or the packet's key."""
    fragment = FragmentRef("bench", str(object_file(source)), name, state_size, flow, key=key)
    return Stage(label or name, kind, name, f"{name}()", fragment, parameters)
