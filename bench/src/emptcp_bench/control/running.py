# SPDX-License-Identifier: Apache-2.0
"""How long changes of what runs take: entries of a set and a map, tune, apply."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from emptcp.chain import apply, edits, running
from emptcp.chain.entries import open_map, open_set
from emptcp.errors import EmptcpError
from emptcp.lab.path import Path
from emptcp.lab.topology import two_hosts
from emptcp.policy import file

ENTRIES = 10_000
POLICIES = (1, 10, 50)
STAGES = 20
"""Of five policies with an actor each."""

_POLICY = """
[[policy]]
name = "p{n}"
hook = "ingress"
dev = "{dev}"
when = "subflow(dport={port})"
do = ["drop()"]
"""
_STAGES = """
[[policy]]
name = "p{n}"
hook = "ingress"
dev = "{dev}"
when = "subflow(dport={port}) and not packet_type('syn') and sample(share=50%)"
do = ["{actor}"]
"""
_ACTORS = (
    "record('packets')",
    "set_backup(on=true)",
    "remove_option(option='add_addr')",
    "get_connect()",
    "drop()",
)
_ENTRIES = """
table = "entries"
[[policy]]
name = "listed"
hook = "ingress"
dev = "{dev}"
when = "subflow in @bulk"
do = ["backup: set_backup(on=true)", "set_backup(on=subflow @who)"]
[set.bulk]
key = "subflow"
[map.who]
key = "subflow"
type = "bool"
"""

Turn = Callable[[], float]
"""Does something once, and returns microseconds."""


@contextmanager
def changes() -> Iterator[dict[str, Turn]]:
    """Yield everything that is measured, by what it is."""
    with two_hosts([Path()], link="veth", name="control") as lab, ExitStack() as stack:
        netns, device = lab.a.netns, lab.paths[0].a.device
        apply.apply(file.loads(_ENTRIES.format(dev=device)), netns)
        stack.callback(apply.remove, "entries")
        yield {
            **_entries(stack),
            "tune a stage, from Python": _tune(),
            **{
                f"apply a table of {number} policies": _apply(
                    _policies(number, device, 1000), "dport=1000", netns
                )
                for number in POLICIES
            },
            **{f"swap {number} policies for others": _swap(number, device, netns) for number in POLICIES},
            f"apply {STAGES} stages on one hook, warm": _apply(_stages(device), "dport=443", netns),
        }


def _entries(stack: ExitStack) -> dict[str, Turn]:
    bulk, who = stack.enter_context(open_set("entries/bulk")), stack.enter_context(open_map("entries/who"))
    keys = [f"10.1.{n // 250}.{n % 250 + 1}:{20000 + n}-10.2.0.1:443" for n in range(ENTRIES)]

    def batch() -> float:
        bulk.flush()
        took = _took(lambda: bulk.add(keys))
        if len(bulk) != ENTRIES:
            raise EmptcpError("not all entries are in the set")
        return took

    values = itertools.cycle(("true", "false"))

    def single() -> float:
        value = next(values)
        took = _took(lambda: who.add({keys[0]: value}))
        if who.read() != {keys[0]: value}:
            raise EmptcpError("the entry is not in the map")
        return took

    return {f"add {ENTRIES:,} entries to a set, in one batch": batch, "add one entry to a map": single}


def _tune() -> Turn:
    values = itertools.cycle((False, True))

    def tune() -> float:
        word = f"on={str(next(values)).lower()}"
        took = _took(lambda: apply.edit("entries", edits.tune("listed", ["backup", word])))
        _check("entries", word)
        return took

    return tune


def _apply(policies: str, words: str, netns: str) -> Turn:
    """Apply a table of policies, and take it away again; ``words`` stand in one of them."""
    table = file.loads('table = "many"' + policies)

    def turn() -> float:
        took = _took(lambda: apply.apply(table, netns))
        _check("many", words)
        apply.remove("many")
        return took

    return turn


def _swap(number: int, device: str, netns: str) -> Turn:
    one, other = (
        file.loads('table = "many"' + _policies(number, device, port).replace("subflow(dport", when))
        for port, when in ((1000, "subflow(dport"), (3000, "not subflow(dport"))
    )

    def turn() -> float:
        apply.apply(one, netns)
        took = _took(lambda: apply.apply(other, netns))
        _check("many", "not subflow(dport=3000)")
        apply.remove("many")
        return took

    return turn


def _stages(device: str) -> str:
    return "".join(
        _STAGES.format(n=n, dev=device, port=443 + n, actor=actor) for n, actor in enumerate(_ACTORS)
    )


def _policies(number: int, device: str, port: int) -> str:
    return "".join(_POLICY.format(n=n, dev=device, port=port + n) for n in range(number))


def _check(table: str, words: str) -> None:
    """Look whether a running program says of itself what was asked for."""
    with running.everything() as found:
        sources = [
            policy.source
            for one in found.values()
            for policy in one.description.policies
            if policy.table == table
        ]
    if not any(words in source for source in sources):
        raise EmptcpError(f"table '{table}' is not what was applied")


def _took(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return 1e6 * (time.perf_counter() - began)
