# SPDX-License-Identifier: Apache-2.0
"""Load a plan as one program: join its fragments, make its maps, hand it to the kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from emptcp import pybpf
from emptcp.chain import counters, engines, joining, layout, sockets
from emptcp.chain.chains import home
from emptcp.chain.description import ChainRecord, Description, PolicyRecord, StageRecord
from emptcp.chain.objects import (
    CORE_BEGIN,
    CORE_BEGIN_LEAN,
    CORE_FINISH,
    CORE_FLOW,
    CORE_PUT_HEADER,
    CORE_TAKE_HEADER,
    LEAN_NEEDS,
    Objects,
)
from emptcp.chain.owned import COUNTERS, DESCRIPTION, KIND, PARAMETERS, Previous, row_bytes, rows
from emptcp.chain.plan import BoundPolicy, Plan, Step
from emptcp.chain.reading import may_read
from emptcp.pybpf import features

ROOM = 512
"""Bytes a description may grow by before the program has to be made anew."""

L2 = {"ethernet": 14, "none": 0}
"""Bytes of link-layer header by what a device's packets begin with."""

_HOOKS = {"ingress": 0, "egress": 1}
_KEY = bytes(4)


@dataclass(frozen=True)
class Place:
    """Where a program will sit, as far as it must know.

    ``backend`` is how it will be attached: ``xdp``, ``xdp-generic`` or ``tc``; ``l2`` is the length of the
    link-layer header; ``fingerprint`` is what tells later whether anything but parameters has changed.
    """

    hook: str
    backend: str
    l2: int
    reason: str = ""
    device: str = ""
    ifindex: int = 0
    netns: str = ""
    cookie: int = 0
    fingerprint: str = ""
    engine: str = engines.FUSED

    @property
    def code(self) -> str:
        """The back-end that the code is compiled for: ``xdp`` or ``tc``."""
        return self.backend.removesuffix("-generic")


@dataclass(frozen=True)
class Slots:
    """Where the steps' parameters and counters are, and the plugins' states in a flow-table entry.

    ``row`` are the bytes of one CPU's counters, ``context`` is the offset of the chain context among the
    parameters, 0 without one.
    """

    parameters: list[layout.Slot | None]
    counters: list[int]
    row: int
    states: Mapping[str, int]
    following: int
    context: int


@dataclass
class Loaded:
    """A program in the kernel, not attached, with the maps it owns."""

    made: engines.Made
    description: Description
    parameters: pybpf.Map
    counters: pybpf.Map
    about: pybpf.Map

    @property
    def program(self) -> pybpf.Program:
        """The program that is to be attached."""
        return self.made.program

    def redescribe(self, description: Description) -> None:
        """Let the program tell what was settled after it was loaded: its back-end and the reason."""
        if description != self.description:
            self.about.update(_KEY, description.encode().ljust(self.about.info.value_size, b"\0"))
            self.description = description

    def close(self) -> None:
        """Give up the descriptors; an attached program keeps its maps."""
        for owned in (self.program, self.made.stages, self.parameters, self.counters, self.about):
            if owned is not None:
                owned.close()


@dataclass
class Prepared:
    """A joined program that the kernel has not seen, with the maps it will own. It is to be loaded."""

    make: Callable[[], engines.Made]
    description: Description
    parameters: pybpf.Map
    counters: pybpf.Map
    about: pybpf.Map

    def load(self) -> Loaded:
        """Hand it to the kernel, which may be done in another thread.

        Raises :class:`EmptcpError` naming policy and stage when the verifier refuses; the maps are gone then.
        """
        with ExitStack() as undo:
            for owned in (self.parameters, self.counters, self.about):
                undo.callback(owned.close)
            made = self.make()
            undo.pop_all()
        return Loaded(made, self.description, self.parameters, self.counters, self.about)


def prepare(
    plan: Plan,
    policies: Sequence[BoundPolicy],
    place: Place,
    objects: Objects,
    state_slots: Mapping[str, int],
    previous: Previous | None = None,
    off: Callable[[str, str], bool] = lambda table, policy: False,
) -> Prepared:
    """Join ``plan``, made of ``policies``, for ``place``; ``off`` tells which begin switched off.

    Raises :class:`EmptcpError` naming policy and stage when a budget is exceeded.
    """
    sizes = {step.name: len(step.stage.parameters) for step in plan.steps}
    placed, size = layout.slots(sizes.values(), len(policies))
    by_name = dict(zip(sizes, placed, strict=True))
    places = [by_name[step.name] for step in plan.steps]
    switches = [off(policy.table, policy.name) for policy in policies]
    with ExitStack() as opened:
        counts, given, following = _counters(plan, previous)
        opened.callback(counts.close)
        offset, tables = engines.tables(place.engine, plan, places, given, size)
        slots = Slots(places, given, row_bytes(counts), state_slots, following, offset if tables else 0)
        description = _describe(plan, policies, place, slots)
        value = bytes(offset) + tables
        parameters = opened.enter_context(_parameters(plan, places, switches, value))
        about = opened.enter_context(_about(description))
        maps = joining.Maps(objects.packet(place.hook, place.code).fd, parameters.fd, counts.fd, about.fd)
        binding = _binding(plan, place, objects, maps, slots)
        make = engines.join(place.engine, plan, binding, offset, len(tables), objects.shared.flows)
        opened.pop_all()
    return Prepared(make, description, parameters, counts, about)


def _binding(plan: Plan, place: Place, objects: Objects, maps: joining.Maps, slots: Slots) -> joining.Binding:
    where = (place.hook, place.code)
    code = {fragment: objects.code(fragment, *where) for fragment in plan.fragments}
    flow = objects.code(CORE_FLOW, *where)
    run = [*code.values(), *([flow] if plan.flow else [])]
    asked = set().union(*(may_read(one, objects.layout.on_demand, maps.packet) for one in run))
    needs = plan.needs | sum(asked)
    lean = place.l2 == L2["ethernet"] and not needs & ~LEAN_NEEDS
    older = [fragment for fragment in plan.fragments if objects.is_older(fragment)]
    around = (CORE_PUT_HEADER, CORE_TAKE_HEADER) if older else ()
    return joining.Binding(
        backend=place.code,
        code={fragment: one.settled(joining.GIVEN) for fragment, one in code.items()},
        begin=objects.code(CORE_BEGIN_LEAN if lean else CORE_BEGIN, *where),
        flow=flow,
        finish=objects.code(CORE_FINISH, *where).settled(joining.GIVEN),
        packet=objects.layout,
        maps=maps,
        parameter_slots=slots.parameters,
        counter_slots=slots.counters,
        row=slots.row,
        state_slots=slots.states,
        how=needs | _HOOKS[place.hook] << 8 | place.l2 << 16,
        netns=int.from_bytes((place.cookie & 0xFFFFFFFF).to_bytes(4, "little"), "little", signed=True),
        stores={store: objects.shared.store(store).fd for store in plan.stores},
        older=older,
        around_older=tuple(objects.code(one, *where).settled(joining.GIVEN) for one in around),
    )


def _parameters(
    plan: Plan, slots: list[layout.Slot | None], switches: Sequence[bool], empty: bytes
) -> pybpf.Map:
    value = bytearray(empty)
    for number, off in enumerate(switches):
        value[layout.switch(number)] = off
    for step, slot in zip(plan.steps, slots, strict=True):
        if slot is not None:
            layout.fill(value, slot, step.stage.parameters)
    flags = pybpf.BPF_F_MMAPABLE if features.has("mmapable_array") else 0
    made = pybpf.Map.create("array", 4, len(value), 1, flags=flags, name=PARAMETERS)
    made.update(_KEY, bytes(value))
    return made


def _counters(plan: Plan, previous: Previous | None) -> tuple[pybpf.Map, list[int], int]:
    """Return the counters' map, the slot of each step, and the first slot never given.

    The running program's map is used on, so that no count is lost at the switch, as long as it has room.
    """
    by_home: dict[str, dict[str, None]] = {}
    for step in plan.steps:
        by_home.setdefault(step.home, {})[step.name] = None
    names = [list(found) for found in by_home.values()]
    if previous is not None:
        given = counters.allocate(names, previous.slots, previous.following)
        reads_alike = previous.counters.info.kind == KIND
        if reads_alike and counters.has_room(row_bytes(previous.counters), given.values()):
            following = max([previous.following, *(slot + 1 for slot in given.values())])
            return previous.counters.duplicate(), _slots(plan, given), following
    given = counters.allocate(names, {})
    row = counters.row_bytes(given.values(), pybpf.cpu_ids())
    made = pybpf.Map.create(KIND, 4, row * pybpf.cpu_ids(), 1, name=COUNTERS)
    if previous is not None:
        _carry_over(previous, made, given)
    return made, _slots(plan, given), max(given.values(), default=0) + 1


def _slots(plan: Plan, given: Mapping[str, int]) -> list[int]:
    return [given[step.name] for step in plan.steps]


def _carry_over(previous: Previous, made: pybpf.Map, given: Mapping[str, int]) -> None:
    """Copy the counts of stages that stay. What is counted between this and the switch is lost."""
    stay = {previous.slots[name]: slot for name, slot in given.items() if name in previous.slots}
    value = b"".join(counters.carry(row, row_bytes(made), stay) for row in rows(previous.counters))
    made.update(_KEY, value.ljust(made.info.value_size, b"\0"))


def _about(description: Description) -> pybpf.Map:
    """Make the description's map, with room for the longer texts of later parameters."""
    value = description.encode()
    size = len(value) + max(len(value) // 2, ROOM)
    made = pybpf.Map.create("array", 4, size, 1, name=DESCRIPTION)
    made.update(_KEY, value.ljust(size, b"\0"))
    return made


def _describe(plan: Plan, policies: Sequence[BoundPolicy], place: Place, slots: Slots) -> Description:
    records = _stages(plan, slots)
    used = {fragment.plugin for fragment in plan.fragments if fragment.state_size}
    chains = dict.fromkeys((policy.table, chain.name) for policy in policies for chain in policy.chains)
    return Description(
        hook=place.hook,
        backend=place.backend,
        reason=place.reason,
        device=place.device,
        ifindex=place.ifindex,
        netns=place.netns,
        cookie=place.cookie,
        policies=tuple(
            PolicyRecord(
                one.table, one.name, one.source, records[f"{one.table}/{one.name}"], layout.switch(number)
            )
            for number, one in enumerate(policies)
        ),
        chains=tuple(ChainRecord(*one, records[home(*one)]) for one in chains),
        companions=tuple(f"{fragment.plugin}:{fragment.name}" for fragment in plan.companions),
        sockets=tuple(map(sockets.name, sockets.wanted(policies))),
        state_slots={plugin: slots.states[plugin] for plugin in sorted(used)},
        following=slots.following,
        fingerprint=place.fingerprint,
        engine=place.engine,
    )


def _stages(plan: Plan, slots: Slots) -> dict[str, tuple[StageRecord, ...]]:
    """Return the stages of each policy and named chain; a chain's are one, however many steps they have."""
    steps: dict[str, list[Step]] = {}
    for step in plan.steps:
        steps.setdefault(step.name, []).append(step)
    found: dict[str, tuple[StageRecord, ...]] = {}
    for same in steps.values():
        found[same[0].home] = (*found.get(same[0].home, ()), _stage(same, slots))
    return found


def _stage(steps: Sequence[Step], slots: Slots) -> StageRecord:
    stage, slot = steps[0].stage, slots.parameters[steps[0].index]
    place = (slot.offset, slot.size) if slot is not None else (0, 0)
    counter = slots.counters[steps[0].index]
    entries = (slots.context + 4 * (step.index + 1) for step in steps)
    names = (stage.id, stage.kind, stage.fragment.plugin, stage.name, stage.text)
    lenders = tuple(dict.fromkeys(one.plugin for one in stage.fragment.imports))
    return StageRecord(*names, counter, *place, tuple(entries) if slots.context and slot else (), lenders)
