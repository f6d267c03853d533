# SPDX-License-Identifier: Apache-2.0
"""Why a policy does to a subflow what it does, or does not: from what copies of the programs said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emptcp.chain import off, running, trips

if TYPE_CHECKING:
    from emptcp.chain.counters import Counters
    from emptcp.chain.description import PolicyRecord
    from emptcp.chain.off import Off
    from emptcp.chain.pins import Pins
    from emptcp.chain.trial import Stage, Tried
    from emptcp.chain.trips import Count
    from emptcp.control.seen import Passes, Seen
    from emptcp.control.view import View

PACKETS = ("ack", "data")
"""The packets that are tried: one without data, and one with. Both carry a DSS."""

_ENDS = ("ACCEPT", "DROP", "REDIRECT")


@dataclass(frozen=True)
class StageSaid:
    """A stage and what it said of each of :data:`PACKETS`; ``counts`` are those of all subflows so far."""

    id: str
    kind: str
    text: str
    said: tuple[Stage, ...]
    counts: Counters


@dataclass(frozen=True)
class PolicySaid:
    """A policy on one hook of one device that the subflow passes.

    ``runs`` and ``verdicts`` are for each of :data:`PACKETS`, a verdict empty where the chain does not run;
    ``why_not`` is why it runs for none, empty where it does for some. ``source`` is the end whose packets
    these are, where this host has no socket.
    """

    table: str
    policy: str
    hook: str
    device: str
    source: str
    off: bool
    runs: tuple[bool, ...]
    verdicts: tuple[str, ...]
    why_not: str
    stages: tuple[StageSaid, ...]


@dataclass(frozen=True)
class Elsewhere:
    """A policy in force that the subflow does not pass, and where it is."""

    table: str
    policy: str
    places: tuple[str, ...]


def policies(view: View, seen: Seen) -> list[PolicySaid]:
    """Return what each policy says that the subflow's packets pass, in the order in which they are asked."""
    counted = trips.counts()
    with running.everything() as everything:
        state = off.read_or_see(everything)
    return [
        _said(passes, number, seen, state, counted[record.table, record.name])
        for passes in view.passing(seen)
        for number, record in enumerate(passes.running.description.policies)
    ]


def elsewhere(tree: Pins, cookie: int, passed: Sequence[PolicySaid]) -> list[Elsewhere]:
    """Return the other policies in force."""
    known = {(one.table, one.policy) for one in passed}
    places: dict[tuple[str, str], list[str]] = {}
    with running.everything(tree) as everything:
        for one in everything.values():
            about = one.description
            where = f" in {about.netns or 'another namespace'}" if about.cookie != cookie else ""
            lost = ", detached" if one.detached else ""
            for record in about.policies:
                place = f"{about.hook} of {about.device}{where}{lost}"
                places.setdefault((record.table, record.name), []).append(place)
    return [Elsewhere(*name, tuple(found)) for name, found in places.items() if name not in known]


def _said(passes: Passes, number: int, seen: Seen, state: Off, guard: Count) -> PolicySaid:
    about = passes.running.description
    record, counts = about.policies[number], passes.running.counts()
    tried = [each[number] for each in passes.tried]
    before = [each[:number] for each in passes.tried]
    source = ""
    if passes.direction >= 0:
        address, port = seen.ends[passes.direction]
        source = f"{address}:{port}"
    return PolicySaid(
        table=record.table,
        policy=record.name,
        hook=about.hook,
        device=about.device,
        source=source,
        off=tried[0].off,
        runs=tuple(one.ran for one in tried),
        verdicts=tuple(one.verdict for one in tried),
        why_not="" if any(one.ran for one in tried) else why_not(tried, before, state, guard),
        stages=tuple(_stages(record, tried, counts)),
    )


def _stages(record: PolicyRecord, tried: Sequence[Tried], counts: dict[str, Counters]) -> Iterator[StageSaid]:
    said = [(*one.selectors, *one.actors) for one in tried]
    by_id = [{stage.id: stage for stage in stages} for stages in said]
    for stage in record.stages:
        answers = tuple(one[stage.id] for one in by_id if stage.id in one)
        yield StageSaid(stage.id, stage.kind, stage.text, answers, counts[f"{record.home}/{stage.id}"])


def why_not(tried: Sequence[Tried], before: Sequence[Sequence[Tried]], state: Off, guard: Count) -> str:
    """Return why a chain runs for no packet, in a sentence without its full stop."""
    one = tried[0]
    if one.failed:
        return f"it can't be tried: {one.failed}"
    if one.off:
        if one.table in state.tables:
            return f"its table is off; on again by: emptcp on {one.table}"
        by = f"the guard {guard}" if guard.trips else "it is off"
        return f"{by}; on again by: emptcp on {one.table} '{one.policy}'"
    asked = [stage for each in tried for stage in each.selectors if stage.answer is not None]
    if not asked:
        ends = (each for frame in before for each in frame if each.verdict in _ENDS)
        first = next(ends, None)
        if first is None:
            return "these packets are none that it looks at"
        return f"policy '{first.policy}' of table {first.table} before it ends with {first.verdict}"
    said = {stage.text: stage for stage in asked}
    return ", ".join(f"{text} says {_answer(stage)}" for text, stage in said.items())


def _answer(stage: Stage) -> str:
    reasons = f" ({', '.join(stage.reasons)})" if stage.reasons else ""
    return f"{'yes' if stage.answer else 'no'}{reasons}"
