# SPDX-License-Identifier: Apache-2.0
"""Programs of other tools on a device: named, so that an operator knows of them, and never touched."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emptcp.hooks import clsact, devices, namespaces
from emptcp.hooks.attach import OURS
from emptcp.hooks.devices import Device
from emptcp.hooks.namespaces import Namespace
from emptcp.pybpf import BpfError, Program, ProgramInfo, features
from emptcp.pybpf.kinds import ATTACH
from emptcp.pybpf.libbpf import library

_PROGRAMS = 64


@dataclass(frozen=True)
class ForeignProgram:
    """Another tool's program: at which hook, by which back-end, its id and name, and who holds it."""

    hook: str
    backend: str
    id: int
    name: str
    owner: str

    def __str__(self) -> str:
        return f"{self.hook} {self.backend}: '{self.name}' (id {self.id}, {self.owner})"


def programs(namespace: Namespace, device: Device) -> list[ForeignProgram]:
    """Return the programs on a device that are not emptcp's, in the order packets meet them.

    :raises EmptcpError: the namespace can't be entered, or the device is gone.
    """
    now = devices.find(namespace, device.name)
    places = namespaces.call(namespace, lambda: list(_places(now)))
    infos = {number: info for _hook, _backend, number in places if (info := _info(number)) is not None}
    theirs = {number: info for number, info in infos.items() if not info.name.startswith(OURS)}
    holders = _holders(set(theirs)) if theirs else {}
    return [
        ForeignProgram(hook, backend, number, theirs[number].name, _owner(theirs[number], holders))
        for hook, backend, number in places
        if number in theirs
    ]


def _places(device: Device) -> Iterator[tuple[str, str, int]]:
    """Yield hook, back-end and program id of everything on a device of this thread's namespace."""
    for mode, number in device.xdp:
        yield "ingress", {"native": "xdp", "generic": "xdp-generic"}.get(mode, "xdp-hardware"), number
    for hook in ("ingress", "egress"):
        for number in _tcx(device.ifindex, hook):
            yield hook, "tc", number
        for found in sorted(clsact.filters(device.ifindex, hook), key=lambda entry: entry.priority):
            yield hook, "tc", found.program_id


def _tcx(ifindex: int, hook: str) -> list[int]:
    if not features.has("tcx"):
        return []
    opened = library()
    ids = opened.ffi.new("uint32_t[]", _PROGRAMS)
    opts = opened.options("bpf_prog_query_opts", prog_ids=ids, prog_cnt=_PROGRAMS)
    code = opened.function("bpf_prog_query_opts")(ifindex, ATTACH[f"tcx_{hook}"], opts)
    return [int(number) for number in ids[0 : min(opts.prog_cnt, _PROGRAMS)]] if code == 0 else []


def _info(number: int) -> ProgramInfo | None:
    try:
        with Program.from_id(number) as program:
            return program.info
    except BpfError:
        return None


def _owner(info: ProgramInfo, holders: dict[int, str]) -> str:
    if info.id in holders:
        return holders[info.id]
    try:
        return f"loaded by {pwd.getpwuid(info.uid).pw_name}"
    except KeyError:
        return f"loaded by user {info.uid}"


def _holders(wanted: set[int]) -> dict[int, str]:
    """Return the processes that have programs, or links to them, open: ``cilium-agent, pid 12``."""
    found: dict[int, str] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        for number in _open_programs(process) & wanted:
            found.setdefault(number, f"{_command(process)}, pid {process.name}")
    return found


def _open_programs(process: Path) -> set[int]:
    try:
        descriptors = [fd for fd in os.listdir(process / "fd") if "bpf" in os.readlink(process / "fd" / fd)]
        infos = [(process / "fdinfo" / fd).read_text() for fd in descriptors]
    except OSError:
        # The process went away, or is not ours to look at.
        return set()
    rows = (row.split(":", 1) for info in infos for row in info.splitlines() if ":" in row)
    return {int(value) for key, value in rows if key == "prog_id"}


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a process"
