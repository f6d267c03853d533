# SPDX-License-Identifier: Apache-2.0
"""Run policies over single packets without attaching anything (``BPF_PROG_TEST_RUN``).

The program is the very one that would be attached; only its maps are private. Used by `trace`, by the
tests of every plugin, and to ask whether a policy would select a packet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from emptcp import pybpf
from emptcp.chain import counters, owned, program
from emptcp.chain.description import PolicyRecord
from emptcp.chain.objects import Objects
from emptcp.chain.plan import BoundPolicy, companions_for, plan
from emptcp.chain.shared import PrivateMaps, no_elder
from emptcp.chain.states import Places, allocate, offsets
from emptcp.chain.storage import Store
from emptcp.chain.stores import listed

VERDICTS = {
    "xdp": {0: "drop", 1: "drop", 2: "pass", 3: "redirect", 4: "redirect"},
    "tc": {0xFFFFFFFF: "pass", 0: "pass", 2: "drop", 7: "redirect"},
}
"""Names of the answers of XDP and TC programs."""


@dataclass(frozen=True)
class Result:
    """What became of one packet.

    ``matched`` has the names of the policies whose chain ran; ``reason`` is why something was left
    untouched (the last stage that said so), or ``None``; ``counts`` has what each stage counted.
    """

    verdict: str
    data: bytes
    matched: tuple[str, ...]
    reason: str | None
    duration_ns: int
    counts: dict[str, counters.Counters]


class Runner:
    """A loaded, unattached program for one hook and back-end. A context manager.

    ``link`` is what packets begin with: ``ethernet`` or ``none`` (an IP header). ``off`` tells of each
    policy, by table and name, whether it is switched off; ``contents`` what is in a set or map, which without
    it is what the file lists; ``slots`` are places in the flow table's entries that are given already;
    ``elder`` opens the map that a plugin's begins as a copy of.
    """

    def __init__(
        self,
        policies: Sequence[BoundPolicy],
        hook: str = "ingress",
        backend: str = "xdp",
        link: str = "ethernet",
        engine: str = "fused",
        off: Callable[[str, str], bool] = lambda table, policy: False,
        contents: Callable[[Store], Mapping[bytes, bytes]] = listed,
        slots: Places = MappingProxyType({}),
        elder: Callable[[str, str], pybpf.Map | None] = no_elder,
    ) -> None:
        self.backend = backend
        made = plan(hook, policies, companions_for(hook, policies))
        self._plan = made
        place = program.Place(hook, backend, program.L2[link], device="(trial)", engine=engine)
        self.states = offsets(allocate(made.fragments, slots))
        with ExitStack() as opened:
            self.shared = opened.enter_context(closing(PrivateMaps(contents, elder)))
            self._objects = opened.enter_context(Objects(self.shared))
            prepared = program.prepare(made, policies, place, self._objects, self.states, off=off)
            self.loaded = opened.enter_context(closing(prepared.load()))
            self._opened = opened.pop_all()
        self._before = self.counts()

    def close(self) -> None:
        """Unload the program and its maps."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def run(self, data: bytes, *, repeat: int = 1, ctx: bytes | None = None) -> Result:
        """Run one packet through the program.

        Raises :class:`~emptcp.pybpf.BpfError` for packets the kernel does not take for a trial: shorter than
        an Ethernet header, or longer than a page with its head- and tailroom.
        """
        outcome = self.loaded.program.test_run(data, repeat=repeat, ctx=ctx)
        after = self.counts()
        counts = {name: after[name] - self._before[name] for name in after}
        self._before = after
        matched = _matched(self.loaded.description.policies, counts)
        verdict = VERDICTS[self.backend].get(outcome.retval & 0xFFFFFFFF, f"answer {outcome.retval}")
        return Result(verdict, outcome.data, matched, _reason(counts), outcome.duration_ns, counts)

    def map(self, name: str) -> pybpf.Map:
        """Return a plugin's own map, by the name it has in the C file."""
        return self._objects.map(name)

    def store(self, kind: str, name: str) -> pybpf.Map:
        """Return the kernel map of a set or a map (``kind``) that the policies look something up in."""
        (found,) = (one for one in self._plan.stores if (one.kind, one.name) == (kind, name))
        return self.shared.store(found)

    def counts(self) -> dict[str, counters.Counters]:
        """Return what each stage has counted so far."""
        return owned.read_counters(self.loaded.counters, self.loaded.description)


def _matched(policies: Sequence[PolicyRecord], counts: dict[str, counters.Counters]) -> tuple[str, ...]:
    """Return the policies of which the first actor, or ``goto``, was given the packet, in order."""
    found = []
    for policy in policies:
        first = next(stage for stage in policy.stages if stage.kind != "selector")
        if counts[f"{policy.table}/{policy.name}/{first.id}"].packets:
            found.append(policy.name)
    return tuple(found)


def _reason(counts: dict[str, counters.Counters]) -> str | None:
    found = [name for count in counts.values() for name in count.reasons]
    return found[-1] if found else None
