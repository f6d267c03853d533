# SPDX-License-Identifier: Apache-2.0
"""What is in force, read from the kernel: every pinned program with its description, counters, parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from emptcp import pybpf
from emptcp.chain import layout
from emptcp.chain.counters import Counters
from emptcp.chain.description import Description, PolicyRecord, StageRecord
from emptcp.chain.owned import COUNTERS, DESCRIPTION, PARAMETERS, Previous, read_counters
from emptcp.chain.pins import LINK, PROGRAM, Location, Pins, find


@dataclass
class Running:
    """An attached program. ``link`` is ``None`` where the attachment is a clsact filter or old-style XDP.

    It holds descriptors until it is closed.
    """

    location: Location
    folder: Path
    program: pybpf.Program
    link: pybpf.Link | None
    description: Description
    parameters: pybpf.Map
    counters: pybpf.Map
    about: pybpf.Map

    def close(self) -> None:
        """Give up the descriptors; what runs goes on."""
        for owned in (self.link, self.program, self.parameters, self.counters, self.about):
            if owned is not None:
                owned.close()

    @property
    def detached(self) -> bool:
        """Whether the link has no device any more: it went away, or somebody else detached the link."""
        return self.link is not None and self.link.info.ifindex == 0

    def counts(self) -> dict[str, Counters]:
        """Return what each stage counted, by ``table/policy/stage``; the program's own under ``""``."""
        return read_counters(self.counters, self.description)

    def values(self) -> dict[str, bytes]:
        """Return the parameters of every stage that are in force, by ``table/policy/stage``."""
        value = self.parameters.lookup(bytes(4)) or b""
        stages = self.description.stages().items()
        return {name: layout.read(value, stage.slot) if stage.slot else b"" for name, stage in stages}

    def off(self, policy: PolicyRecord) -> bool:
        """Return whether one of the description's policies is switched off."""
        value = self.parameters.lookup(bytes(4)) or b""
        return bool(policy.switch) and any(value[policy.switch : policy.switch + layout.SWITCH_SIZE])

    def switch(self, off: Callable[[str, str], bool]) -> None:
        """Switch every policy off or on, each by one store; ``off`` is asked by table and name."""
        wanted = {record.switch: off(record.table, record.name) for record in self.description.policies}
        mapped = bool(self.parameters.info.flags & pybpf.BPF_F_MMAPABLE)
        value = bytearray() if mapped else bytearray(self.parameters.lookup(bytes(4)) or b"")
        words = (self.parameters.mmap() if mapped else memoryview(value)).cast("Q")
        for place, is_off in wanted.items():
            if place:
                layout.turn(words, place, is_off)
        if not mapped:
            self.parameters.update(bytes(4), bytes(value))

    def write(self, stages: Mapping[str, bytes], description: Description) -> None:
        """Put other parameters in force, by ``table/policy/stage``, and describe them.

        Raises :class:`~emptcp.pybpf.BpfError` before anything is written when the description has no room.
        """
        size = self.about.info.value_size
        text = description.encode()
        if len(text) > size:
            raise pybpf.BpfError(f"the description of {description.device} {description.hook} has no room")
        records = self.description.stages()
        self._put([(records[name], packed) for name, packed in stages.items() if records[name].size])
        self.about.update(bytes(4), text.ljust(size, b"\0"))
        self.description = description

    def _put(self, changes: Sequence[tuple[StageRecord, bytes]]) -> None:
        if self.parameters.info.flags & pybpf.BPF_F_MMAPABLE:
            words = self.parameters.mmap().cast("Q")
            for record, packed in changes:
                layout.prepare(words, _slot(record), packed)
                _put_in_force(words, record, packed)
            return
        # One write for what is not in force yet, another for what puts it there: the order between is sure.
        value = bytearray(self.parameters.lookup(bytes(4)) or b"")
        words = memoryview(value).cast("Q")
        for record, packed in changes:
            layout.prepare(words, _slot(record), packed)
        self.parameters.update(bytes(4), bytes(value))
        for record, packed in changes:
            _put_in_force(words, record, packed)
        self.parameters.update(bytes(4), bytes(value))

    def previous(self) -> Previous:
        """Return what the next program at this location takes over."""
        slots = {name: stage.counter for name, stage in self.description.stages().items()}
        return Previous(self.counters, slots, self.description.following)


def _slot(record: StageRecord) -> layout.Slot:
    return layout.Slot(record.offset, record.size)


def _put_in_force(words: memoryview, record: StageRecord, packed: bytes) -> None:
    """Flip the stage's sides, and let its entries of the chain context carry or point to the new value."""
    from emptcp.chain import context

    layout.flip(words, _slot(record))
    for entry in record.entries:
        word, shift = entry // 8, entry % 8 * 8
        changed = context.with_parameters(words[word] >> shift & 0xFFFFFFFF, packed, _slot(record))
        words[word] = words[word] & ~(0xFFFFFFFF << shift) | changed << shift


class Everything(dict[Location, Running]):
    """All that runs, by place. A context manager, which closes it."""

    def close(self) -> None:
        """Close each program."""
        for one in self.values():
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def everything(pins: Pins | None = None) -> Everything:
    """Return all that runs; empty without a pin tree."""
    pins = pins or find()
    found = Everything()
    if pins is not None:
        with ExitStack() as opened:
            opened.enter_context(found)
            for location in pins.locations():
                if (running := at(pins, location)) is not None:
                    found[location] = running
            opened.pop_all()
    return found


def at(pins: Pins, location: Location) -> Running | None:
    """Return what runs at a location, ``None`` when nothing of emptcp does."""
    folder = pins.folder(location)
    with ExitStack() as opened:
        link = opened.enter_context(pybpf.Link.from_pin(folder / LINK)) if (folder / LINK).exists() else None
        if link is not None:
            loaded = opened.enter_context(pybpf.Program.from_id(link.info.program_id))
        elif (folder / PROGRAM).exists():
            loaded = opened.enter_context(pybpf.Program.from_pin(folder / PROGRAM))
        else:
            return None
        maps = _own_maps(loaded, opened)
        about = maps[DESCRIPTION]
        description = Description.decode(about.lookup(bytes(4)) or b"")
        opened.pop_all()
    parameters, counts = maps[PARAMETERS], maps[COUNTERS]
    return Running(location, folder, loaded, link, description, parameters, counts, about)


def tables(found: dict[Location, Running]) -> dict[str, list[Running]]:
    """Return the running programs of each table, by name."""
    by_table: dict[str, list[Running]] = {}
    for running in found.values():
        for name in dict.fromkeys(policy.table for policy in running.description.policies):
            by_table.setdefault(name, []).append(running)
    return dict(sorted(by_table.items()))


def tables_using(found: dict[Location, Running], plugin: str) -> list[str]:
    """Return the tables that use maps of a plugin: with stages of it, or of one that imports from it.

    Without a plugin, those that use anything of emptcp.
    """
    stages = (
        (home.table, {stage.plugin, *stage.imports})
        for running in found.values()
        for home in running.description.homes
        for stage in home.stages
    )
    return sorted({table for table, plugins in stages if not plugin or plugin in plugins})


def plugins_in_use(found: dict[Location, Running]) -> dict[str, tuple[str, ...]]:
    """Return plugin -> the policies and named chains that use it."""
    users: dict[str, dict[str, None]] = {}
    for running in found.values():
        for home in running.description.homes:
            for stage in home.stages:
                if stage.plugin:  # a goto is of none
                    users.setdefault(stage.plugin, {})[home.name] = None
    return {plugin: tuple(policies) for plugin, policies in sorted(users.items())}


def _own_maps(loaded: pybpf.Program, opened: ExitStack) -> dict[str, pybpf.Map]:
    """Return the maps that a program does not share, by their names, to be closed with ``opened``."""
    own = (DESCRIPTION, PARAMETERS, COUNTERS)
    found = {}
    for number in loaded.info.map_ids:
        one = pybpf.Map.from_id(number)
        if one.info.name in own:
            found[one.info.name] = opened.enter_context(one)
        else:
            one.close()
    return found
