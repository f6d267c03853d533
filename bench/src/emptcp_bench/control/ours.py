# SPDX-License-Identifier: Apache-2.0
"""How long emptcp takes to turn a subflow into a backup: from the call to the map, and to a packet."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from emptcp import pybpf
from emptcp.chain import layout, storage
from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.chain.lookups import everything
from emptcp.errors import EmptcpError
from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss, MpPrio
from emptcp.packet.tcp import Nop, Timestamps
from emptcp.plugins.catalog import Catalog
from emptcp.policy import file, model

REPEAT = 200
"""Calls of one turn, of which the mean counts; both values in turns."""

SUBFLOW = "10.0.0.1:40000-10.0.0.2:5001"

# The peer says something else in every packet, so the stage has to rewrite each.
_SAYS = (Nop(), Nop(), Timestamps(1, 2), Dss(data_ack=7))
_TABLE = """
table = "bench"
[[policy]]
name = "backup"
hook = "ingress"
dev = "x"
do = ["set_backup(on={on})"]
[map.who]
key = "subflow"
type = "bool"
"""


@contextmanager
def by_system_call() -> Iterator[tuple[Callable[[], float], Callable[[], float]]]:
    """Yield the microseconds of setting an entry by one ``bpf()``, and those until a packet says it."""
    table = file.loads(_TABLE.format(on="subflow @who"))
    (store,) = everything(table, Catalog.of_enabled())
    key = store.key_of(SUBFLOW)
    entries = [storage.entry(store.value_of(text), 0) for text in ("false", "true")]
    with _runner(table) as runner:
        who = runner.store("map", "who")

        def in_turns(one: bytes, other: bytes) -> None:
            for _ in range(REPEAT // 4):
                who.update(key, one)
                who.update(key, other)

        said = _until_said(partial(who.update, key), runner, entries)
        yield _timed(in_turns, partial(who.lookup, key), entries), said


@contextmanager
def by_memory() -> Iterator[tuple[Callable[[], float], Callable[[], float]]]:
    """Yield the microseconds of setting a parameter in mapped memory, and those until a packet says it."""
    table = file.loads(_TABLE.format(on="true").partition("[map")[0])
    with _runner(table) as runner:
        (record,) = runner.loaded.description.stages().values()
        parameters = runner.loaded.parameters
        if not parameters.info.flags & pybpf.BPF_F_MMAPABLE:
            raise EmptcpError("this kernel maps no memory of maps", fix="Use Linux 5.5 or later.")
        slot, words = layout.Slot(record.offset, record.size), parameters.mmap().cast("Q")
        steers = layout.read(parameters.lookup(bytes(4)) or b"", slot)[4:]
        packed = [struct.pack("<I", on) + steers for on in (0, 1)]

        def in_turns(one: bytes, other: bytes) -> None:
            for _ in range(REPEAT // 4):
                layout.change(words, slot, one)
                layout.change(words, slot, other)

        def read() -> bytes:
            return layout.read(parameters.lookup(bytes(4)) or b"", slot)

        said = _until_said(partial(layout.change, words, slot), runner, packed)
        yield _timed(in_turns, read, packed), said


def _runner(table: model.Table) -> Runner:
    return Runner([bind(table, table.policies[0], "ingress", Catalog.of_enabled())], "ingress", "tc")


def _timed(
    in_turns: Callable[[bytes, bytes], None], read: Callable[[], bytes | None], values: list[bytes]
) -> Callable[[], float]:
    """Return what sets both values in turns and returns the mean; it looks whether the last one took."""
    off, on = values

    def turn() -> float:
        took = 0
        for one, last in ((off, on), (on, off)):
            began = time.perf_counter_ns()
            in_turns(one, last)
            took += time.perf_counter_ns() - began
            if read() != last:
                raise EmptcpError("what was set is not in the map")
        return took / 1000 / REPEAT

    return turn


def _until_said(put: Callable[[bytes], None], runner: Runner, values: list[bytes]) -> Callable[[], float]:
    """Return what sets a value and lets a packet that says the contrary pass; the packet must say it then."""
    packets = {on: build(options=[*_SAYS, MpPrio(backup=on)]) for on in (True, False)}
    program = runner.loaded.program

    def turn() -> float:
        took = 0
        for wanted in (True, False):
            value, packet = values[wanted], packets[not wanted]
            began = time.perf_counter_ns()
            put(value)
            after = program.test_run(packet).data
            took += time.perf_counter_ns() - began
            if not says(after, wanted):
                raise EmptcpError("the packet does not say what was set")
        return took / 1000 / 2

    return turn


def says(packet: bytes, backup: bool) -> bool:
    """Return whether a packet is valid and says ``backup``."""
    found = decode(packet)
    options = [one.option for one in found.tcp.options] if found.tcp else []
    return found.valid and [one.backup for one in options if isinstance(one, MpPrio)] == [backup]
