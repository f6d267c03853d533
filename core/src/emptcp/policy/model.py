# SPDX-License-Identifier: Apache-2.0
"""What a policy file says, as frozen data; the file and the Python API build exactly the same.

Arguments stay as the operator wrote them (``"10mbit"``): their types are the plugins' business. Places
take no part in comparison, so two tables are equal when they say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from emptcp.policy.place import NOWHERE, Place
from emptcp.policy.requirement import Requirement

HOOKS = ("ingress", "egress", "socket")
BACKENDS = ("auto", "xdp", "xdp-generic", "tc")
ENGINES = ("fused", "tail")
CARRIERS = ("per-cpu", "metadata")
"""What carries the chain context of the engine ``tail``. A table says both as one: ``tail-metadata``."""
TAIL_METADATA = "tail-metadata"
STEERED = ("us", "peer")
"""Whose sending a controller steers: this host's, or the other end's."""
ON_FAILURE = ("keep", "withdraw")
"""What becomes of a controller's settings when it fails."""
NESTING = 64
"""Most parentheses and ``not`` that may enclose a selector."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as text, without its quotes: ``10mbit``, ``syn``, ``true``."""

    text: str
    where: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Listing:
    """Several values: ``[rtt, bytes]``."""

    items: tuple[Scalar, ...]
    where: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FromMap:
    """A value that is looked up per packet: ``subflow @rates`` reads map ``rates`` by key ``subflow``."""

    key: str
    map: str
    where: Place = field(default=NOWHERE, compare=False, repr=False)


Argument = Scalar | Listing | FromMap


@dataclass(frozen=True, slots=True)
class Keyword:
    """An argument given by name. ``where`` is the place of the name."""

    name: str
    value: Argument
    where: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A selector or an actor as the operator wrote it, before any plugin was asked.

    ``kind`` is ``"selector"`` or ``"actor"``. ``name`` may be qualified: ``emptcp-actor-record:record``.
    ``label`` is empty when the operator gave none.
    """

    kind: str
    name: str
    positional: tuple[Argument, ...] = ()
    keywords: tuple[Keyword, ...] = ()
    label: str = ""
    where: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Goto:
    """The last entry of a ``do``: go on in the chain of this name, and don't come back."""

    chain: str
    where: Place = field(default=NOWHERE, compare=False, repr=False)


Step = StageSpec | Goto


@dataclass(frozen=True, slots=True)
class And:
    """Matches when every child does; children are asked from left to right until one does not."""

    children: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Matches when one child does; children are asked from left to right until one does."""

    children: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Matches when the child does not."""

    child: Expression


@dataclass(frozen=True, slots=True)
class Select:
    """A leaf: one selector."""

    stage: StageSpec


@dataclass(frozen=True, slots=True)
class InSet:
    """A leaf: the packet's key is in a set, ``subflow in @bulk``."""

    key: str
    set: str
    where: Place = field(default=NOWHERE, compare=False, repr=False)


Expression = And | Or | Not | Select | InSet


@dataclass(frozen=True, slots=True)
class Chain:
    """A named chain that several policies may go to."""

    name: str
    do: tuple[Step, ...]
    where: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Set:
    """A table of keys. ``size`` in entries; ``timeout`` in nanoseconds, 0 keeps entries for ever."""

    name: str
    key: str
    size: int = 65536
    timeout: int = 0
    lru: bool = False
    entries: tuple[str, ...] | None = None
    where: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Map:
    """A table from a key to a value of parameter type ``type``; see :class:`Set` for the rest."""

    name: str
    key: str
    type: str
    size: int = 65536
    timeout: int = 0
    lru: bool = False
    entries: tuple[tuple[str, str], ...] | None = None
    where: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Path:
    """A named way to the peer, as controllers see it. Rate, cost and quota stay as written."""

    name: str
    devices: tuple[str, ...] = ()
    local: str = ""
    links: tuple[str, ...] = ()
    rate: str = ""
    cost: str = ""
    quota: str = ""
    where: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Controller:
    """A user-space policy loop: ``use`` names its kind, ``parameters`` are its own.

    It looks after the connections that have subflows which ``when`` selects, and that use ``paths`` (none
    named: any), in namespace ``netns`` (as for :class:`Policy`). ``interval`` is a time as written, empty
    where its kind decides; ``steers`` is one of :data:`STEERED`, ``on_failure`` of :data:`ON_FAILURE`.
    """

    name: str
    use: str
    when: Expression | None = None
    paths: tuple[str, ...] = ()
    parameters: tuple[Keyword, ...] = ()
    netns: str | None = None
    interval: str = ""
    steers: str = "us"
    on_failure: str = "keep"
    where: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Policy:
    """Which packets (``when``; ``None`` is every MPTCP packet) on which hooks, and what is done to them.

    ``devices`` are names or globs. ``netns`` is a name, a path or a pid as text; ``None`` is the
    namespace that the command runs for. ``engine`` is the table's.
    """

    name: str
    table: str
    hooks: tuple[str, ...]
    devices: tuple[str, ...]
    when: Expression | None
    do: tuple[Step, ...]
    netns: str | None = None
    backend: str = "auto"
    optional: bool = False
    unsafe: bool = False
    engine: str = "fused"
    where: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Table:
    """All that one file owns.

    ``guard_window`` is how long a new table is watched for harm, in nanoseconds; ``None``: as is usual.
    """

    name: str
    policies: tuple[Policy, ...] = ()
    chains: tuple[Chain, ...] = ()
    sets: tuple[Set, ...] = ()
    maps: tuple[Map, ...] = ()
    controllers: tuple[Controller, ...] = ()
    paths: tuple[Path, ...] = ()
    engine: str = "fused"
    exact: bool = False
    requires: tuple[Requirement, ...] = ()
    guard_window: int | None = None
    source: str = field(default="", compare=False)

    @property
    def carrier(self) -> str:
        """What carries the chain context."""
        return "metadata" if self.engine == TAIL_METADATA else "per-cpu"

    def chain(self, name: str) -> Chain:
        """Return the chain of this name; :func:`emptcp.policy.check.check` made sure that it is there."""
        return next(chain for chain in self.chains if chain.name == name)


def conjunction(*children: Expression) -> And:
    """Join with ``and``; an ``and`` among the children is dissolved, which changes nothing but nesting."""
    return And(tuple(_dissolved(And, children)))


def disjunction(*children: Expression) -> Or:
    """Join with ``or``; an ``or`` among the children is dissolved."""
    return Or(tuple(_dissolved(Or, children)))


def _dissolved(kind: type[And] | type[Or], children: tuple[Expression, ...]) -> Iterator[Expression]:
    for child in children:
        if isinstance(child, kind):
            yield from child.children
        else:
            yield child


def leaves(expression: Expression | None) -> Iterator[Select | InSet]:
    """Yield the selectors of an expression in the order in which they are written."""
    if isinstance(expression, And | Or):
        for child in expression.children:
            yield from leaves(child)
    elif isinstance(expression, Not):
        yield from leaves(expression.child)
    elif expression is not None:
        yield expression


def selectors(expression: Expression | None) -> tuple[StageSpec, ...]:
    """Return the selector stages of an expression, from left to right."""
    return tuple(leaf.stage for leaf in leaves(expression) if isinstance(leaf, Select))


def actors(table: Table, do: tuple[Step, ...]) -> tuple[StageSpec, ...]:
    """Return the actors that a ``do`` runs, with those of the chain that it goes to at its end."""
    chains: Mapping[str, Chain] = {chain.name: chain for chain in table.chains}
    found: list[StageSpec] = []
    steps = list(do)
    while steps:
        step = steps.pop(0)
        if isinstance(step, Goto):
            steps = list(chains[step.chain].do)
        else:
            found.append(step)
    return tuple(found)
