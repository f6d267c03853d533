# SPDX-License-Identifier: Apache-2.0
"""The plan: policies flattened into stages with next-if-match and next-if-not.

A plan is pure data made from bound policies. Both engines execute it: ``fused`` turns the edges into
jumps, ``tail`` into chain-context entries (paper, section IV-A, Fig. 4). Evaluation order is the
order in which the operator wrote the expression, with short circuit: a stage that cannot change the
outcome any more is not run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from emptcp.chain.counters import CHUNK_STAGES
from emptcp.chain.storage import Store
from emptcp.errors import EmptcpError
from emptcp.plugins.imports import Imported
from emptcp.plugins.manifest import BACKENDS
from emptcp.policy import model

END = -1
"""Edge of a step that leads out of its policy."""

PARSE_KEY, PARSE_PLAIN = 2, 4
"""Of ``emptcp_parse_config.needs`` what a plan tells. The rest the fragments' code does: see
:attr:`emptcp.chain.joining.PacketLayout.on_demand`."""


@dataclass(frozen=True)
class FragmentRef:
    """Where a fragment is: the plugin, its object file, the section's name without the back-end.

    ``flow``: it reads the head of the packet's flow-table entry, if there is one; ``key``: the packet's key.
    ``imports`` are the maps of other plugins that its object uses.
    """

    plugin: str
    object: str
    name: str
    state_size: int = 0
    flow: bool = False
    imports: tuple[Imported, ...] = ()
    key: bool = False


def reads_flow(reads: Collection[str]) -> bool:
    """Return whether what a manifest says that a fragment reads stands in the flow table."""
    return "flow" in reads or "connection" in reads


@dataclass(frozen=True)
class ValueLookup:
    """A value that comes from a map: ``offset`` and ``size`` of its member in the stage's struct."""

    store: Store
    offset: int
    size: int


@dataclass(frozen=True)
class Stage:
    """A selector or an actor in its place, bound to its fragment and its packed parameters.

    ``id`` is the operator's label, or the stage's name, with ``#2``, ``#3`` for repeats within the policy, or
    within the named chain. A selector with a ``member`` matches packets whose key, which the fragment tells,
    is in that set. ``values`` are the parameters that come from maps, ``chains`` the named chains that it may
    choose from, each with its number, ``backends`` where it works.
    """

    id: str
    kind: str
    name: str
    text: str
    fragment: FragmentRef
    parameters: bytes
    reads: frozenset[str] = frozenset()
    plain_tcp: bool = False
    companions: tuple[tuple[str, FragmentRef], ...] = ()
    member: Store | None = None
    values: tuple[ValueLookup, ...] = ()
    chains: tuple[tuple[int, str], ...] = ()
    backends: tuple[str, ...] = BACKENDS

    @property
    def fragments(self) -> tuple[FragmentRef, ...]:
        """The stage's own fragment, and those of the keys by which its values are looked up."""
        return (self.fragment, *(value.store.key for value in self.values))

    @property
    def stores(self) -> tuple[Store, ...]:
        """The sets and maps that the stage looks something up in."""
        asked = (self.member,) if self.member is not None else ()
        return (*asked, *(value.store for value in self.values))


@dataclass(frozen=True)
class BoundChain:
    """A named chain: its actors, and the chain that it goes to at its end (empty: none)."""

    name: str
    actors: tuple[Stage, ...]
    goto: str = ""


@dataclass(frozen=True)
class BoundPolicy:
    """A policy whose stages are bound: what it selects (``None``: everything) and its chain.

    ``goto`` is the named chain that its own ends in, ``chains`` are all that it may come to, each before
    those that it leads to. ``source`` is the policy as a file would say it, ``engine`` the one its table
    asks for, ``backend`` the one that the policy asks for.
    """

    table: str
    name: str
    when: model.Expression | None
    selectors: tuple[Stage, ...]
    actors: tuple[Stage, ...]
    source: str = ""
    engine: str = "fused"
    goto: str = ""
    chains: tuple[BoundChain, ...] = ()
    backend: str = "auto"

    @property
    def everything(self) -> tuple[Stage, ...]:
        """Every selector and actor, those of the named chains too."""
        return (*self.selectors, *self.actors, *(stage for chain in self.chains for stage in chain.actors))


GOTO = FragmentRef("", "", "goto")
"""Stands where a policy or a chain goes to a named chain: a step that only counts."""


@dataclass(frozen=True)
class Step:
    """A stage in the flattened chain.

    ``if_match`` and ``if_not`` are indices into the plan's steps or :data:`END`. An actor's ``NEXT``
    follows ``if_match``; by ``GOTO`` it goes to the first step of a named chain, by the chain's number in
    ``gotos``; its other verdicts leave the chain. A named chain has steps of their own in each policy that
    comes to it; ``name`` tells which of them are one stage, with the same parameters and counters:
    ``table/policy/stage`` or ``table/@chain/stage``.
    """

    index: int
    policy: int
    stage: Stage
    if_match: int
    if_not: int
    name: str = ""
    gotos: tuple[tuple[int, int], ...] = ()

    @property
    def home(self) -> str:
        """The policy or the named chain that the stage stands in."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True)
class PlannedPolicy:
    """A policy's span of steps: ``first`` to ``last`` inclusive."""

    table: str
    name: str
    first: int
    last: int
    plain_tcp: bool


@dataclass(frozen=True)
class Plan:
    """All that one program on one hook of one device does."""

    hook: str
    policies: tuple[PlannedPolicy, ...]
    steps: tuple[Step, ...]
    companions: tuple[FragmentRef, ...]
    needs: int
    flow: bool

    @property
    def fragments(self) -> tuple[FragmentRef, ...]:
        """Every fragment once, in order of first use."""
        used = [*self.companions, *(one for step in self.steps for one in step.stage.fragments)]
        return tuple(fragment for fragment in dict.fromkeys(used) if fragment != GOTO)

    @property
    def parameters(self) -> dict[str, bytes]:
        """The packed parameters of every stage, by its name."""
        return {step.name: step.stage.parameters for step in self.steps}

    @property
    def stores(self) -> tuple[Store, ...]:
        """Every set and map once, in order of first use."""
        return tuple(dict.fromkeys(store for step in self.steps for store in step.stage.stores))


def plan(hook: str, policies: Sequence[BoundPolicy], companions: Iterable[FragmentRef] = ()) -> Plan:
    """Flatten ``policies``, in order, into a plan for ``hook``.

    ``companions`` are the fragments that actors on any hook want run here before the policies.
    """
    steps: list[Step] = []
    spans: list[PlannedPolicy] = []
    for number, policy in enumerate(policies):
        first = len(steps)
        steps += _flatten(number, first, policy)
        plain = any(stage.plain_tcp for stage in policy.selectors)
        spans.append(PlannedPolicy(policy.table, policy.name, first, len(steps) - 1, plain))
    extra = tuple(dict.fromkeys(companions))
    stages = [step.stage for step in steps]
    used = [*extra, *(fragment for stage in stages for fragment in stage.fragments)]
    flow = any(fragment.state_size or fragment.flow for fragment in used)
    key = flow or any(fragment.key for fragment in used) or any("key" in stage.reads for stage in stages)
    needs = PARSE_KEY if key else 0
    # A known subflow's packets go on without an option too, and only the flow table knows it.
    needs |= PARSE_PLAIN if flow or any(span.plain_tcp for span in spans) else 0
    return Plan(hook, tuple(spans), tuple(steps), extra, needs, flow)


def companions_for(hook: str, policies: Iterable[BoundPolicy]) -> tuple[FragmentRef, ...]:
    """Return the companions that the actors of ``policies`` (on any hook of a device) want on ``hook``."""
    wanted = (
        fragment
        for policy in policies
        for stage in policy.everything
        for where, fragment in stage.companions
        if where == hook
    )
    return tuple(dict.fromkeys(wanted))


def _flatten(number: int, first: int, policy: BoundPolicy) -> Iterator[Step]:
    """Yield the policy's steps: the selectors by short circuit, its own chain, then the named ones."""
    own = f"{policy.table}/{policy.name}"
    chains = (BoundChain("", policy.actors, policy.goto), *policy.chains)
    _check_counts(policy, len(policy.selectors) + _length(chains[0]))
    start = first + len(policy.selectors)
    starts: dict[str, int] = {}
    for chain in chains:
        starts[chain.name] = start
        start += _length(chain)
    edges = _edges(policy.when, first, starts[""]) if policy.when is not None else []
    for stage, (index, if_match, if_not) in zip(policy.selectors, edges, strict=True):
        yield Step(index, number, stage, if_match, if_not, f"{own}/{stage.id}")
    for chain in chains:
        home = f"{policy.table}/@{chain.name}" if chain.name else own
        yield from _of_chain(number, home, chain, starts)


def _of_chain(number: int, home: str, chain: BoundChain, starts: Mapping[str, int]) -> Iterator[Step]:
    first, end = starts[chain.name], starts[chain.name] + _length(chain)
    for index, stage in enumerate(chain.actors, first):
        following = index + 1 if index + 1 < end else END
        gotos = tuple((chosen, starts[name]) for chosen, name in stage.chains)
        yield Step(index, number, stage, following, following, f"{home}/{stage.id}", gotos)
    if chain.goto:
        stage = Stage("goto", "goto", "goto", f"goto {chain.goto}", GOTO, b"")
        target = starts[chain.goto]
        yield Step(end - 1, number, stage, target, target, f"{home}/goto")


def _length(chain: BoundChain) -> int:
    return len(chain.actors) + bool(chain.goto)


def _check_counts(policy: BoundPolicy, own: int) -> None:
    longest = max(((_length(chain), chain.name) for chain in policy.chains), default=(0, ""))
    for count, what in ((own, f"policy '{policy.name}'"), (longest[0], f"chain '{longest[1]}'")):
        if count > CHUNK_STAGES:
            raise EmptcpError(
                f"{what} has {count} stages, more than the {CHUNK_STAGES} one may have",
                fix="Split it into several.",
            )


def _edges(expression: model.Expression, first: int, on_true: int) -> list[tuple[int, int, int]]:
    """Return ``(index, if_match, if_not)`` per leaf, in the order of :func:`emptcp.policy.model.leaves`."""
    found: list[tuple[int, int, int]] = []

    def walk(node: model.Expression, start: int, yes: int, no: int) -> int:
        """Place ``node`` at ``start``; return the index after its last leaf."""
        if isinstance(node, model.Not):
            return walk(node.child, start, no, yes)
        if isinstance(node, model.And | model.Or):
            for child in node.children[:-1]:
                after = start + sum(1 for _ in model.leaves(child))
                start = walk(child, start, *((after, no) if isinstance(node, model.And) else (yes, after)))
            return walk(node.children[-1], start, yes, no)
        found.append((start, yes, no))
        return start + 1

    walk(expression, first, on_true, END)
    return found
