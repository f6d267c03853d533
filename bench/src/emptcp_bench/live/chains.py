# SPDX-License-Identifier: Apache-2.0
"""The chains that live flows pass: real selectors, and actors that rewrite a window and leave flows alone."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import reduce
from operator import xor

from emptcp.chain import placement
from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.chain.plan import BoundPolicy
from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.lab.topology import Lab
from emptcp.plugins.catalog import Catalog
from emptcp.policy import file
from emptcp.pybpf import Program
from emptcp_bench.programs import empty, stage

EVERY = "address(any=0.0.0.0/0)"
"""A selector that looks at every packet of IPv4, and takes it."""

EMPTY = "the empty program"
ACTOR = "toggle_window"
LOWEST = 0x0100
"""The lowest bit of a window, as it lies in memory."""

_POLICY = """
table = "bench"
[[policy]]
name = "live"
hook = "ingress"
dev = "path1"
when = "{when}"
do = ["{do}"]
"""


def masks(actors: int) -> list[int]:
    """Return what the actors flip in a window, one after the other: together nothing, or the lowest bit."""
    single = [LOWEST << 1 + bit for bit in range(actors - 1)]
    return [*single, reduce(xor, single)] if single else [LOWEST]


def policy(lab: Lab, when: str, actors: int) -> BoundPolicy:
    """Return a policy that selects by ``when``, with so many actors."""
    stages = tuple(
        stage("actor", ACTOR, struct.pack("<I", mask), f"{ACTOR}#{number}")
        for number, mask in enumerate(masks(actors), 1)
    )
    return replace(bound(lab, when, "record('packets')"), actors=stages)


def bound(lab: Lab, when: str, do: str) -> BoundPolicy:
    """Return the policy ``live`` of table ``bench``, for what host b receives."""
    table = file.loads(_POLICY.format(when=when, do=do))
    indexes = placement.indexes(namespaces.resolve(lab.b.netns))
    return bind(table, table.policies[0], "ingress", Catalog.of_enabled(), indexes)


@contextmanager
def loaded(lab: Lab, wanted: Mapping[str, tuple[str, int]], backend: str) -> Iterator[dict[str, Runner]]:
    """Load policies for a back-end, by name: each one's selectors, and how many actors it has.

    They have maps of their own: the tables of this machine have no part in it.
    """
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Runner([policy(lab, when, actors)], "ingress", backend))
            for name, (when, actors) in wanted.items()
        }


def check(runners: Mapping[str, Runner]) -> None:
    """Raise EmptcpError unless every actor was given packets, and acted on each of them."""
    for name, runner in runners.items():
        counts = {stage: one for stage, one in runner.counts().items() if ACTOR in stage}
        failed = [stage for stage, one in counts.items() if not one.packets or one.skipped]
        if failed or not counts:
            raise EmptcpError(f"chain '{name}' did not do its work on live packets: {', '.join(failed)}")


@contextmanager
def measured(lab: Lab, wanted: Mapping[str, tuple[str, int]], backend: str) -> Iterator[dict[str, Program]]:
    """Load such policies, and the empty program before them; in the end look whether all did their work."""
    with empty(backend) as nothing, loaded(lab, wanted, backend) as runners:
        yield {EMPTY: nothing} | programs(runners)
        check(runners)


def programs(runners: Mapping[str, Runner]) -> dict[str, Program]:
    """Return the programs of loaded policies."""
    return {name: runner.loaded.program for name, runner in runners.items()}
