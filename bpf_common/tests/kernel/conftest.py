# SPDX-License-Identifier: Apache-2.0
"""The headers' functions as test programs: compile them, run them on a packet, read what they left behind."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest

from emptcp.chain import reasons
from emptcp.packet.layers import Link
from emptcp.pybpf import Btf, LoadedObject, Program, load_object
from emptcp_sdk.compiler import compile_source, find_compiler

PROGRAMS = Path(__file__).parent / "programs"
FIRST = struct.pack("<I", 0)
NEED_OPTIONS, NEED_KEY, NEED_TCP, NEED_REST = 1, 2, 8, 16
NEED_ALL = NEED_OPTIONS | NEED_KEY | NEED_TCP | NEED_REST
Backend = Literal["xdp", "tc"]

JOBS = ("nothing", "insert", "remove", "rewrite", "rewrite_odd", "cap", "insert_prio", "rewrite_option")


@pytest.fixture(scope="session", autouse=True)
def one_cpu() -> Iterator[None]:
    """Stay on one CPU: what the programs leave in per-CPU maps is read back from there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every test program, compiled as plugins are: name -> object file."""
    compiler, folder = find_compiler(), tmp_path_factory.mktemp("programs")
    found = {source.name.partition(".")[0]: source for source in PROGRAMS.glob("*.bpf.c")}
    for name, source in found.items():
        compile_source(compiler, source, folder / f"{name}.bpf.o")
    return {name: folder / f"{name}.bpf.o" for name in found}


@pytest.fixture(scope="session")
def parse_object(objects: dict[str, Path]) -> Iterator[LoadedObject]:
    """The programs around the parser and the flow table."""
    with load_object(objects["parse"]) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def change_object(objects: dict[str, Path]) -> Iterator[LoadedObject]:
    """The programs around the changing functions."""
    with load_object(objects["change"]) as loaded:
        yield loaded


@pytest.fixture(scope="session", params=["xdp", "tc"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each back-end in turn."""
    return request.param  # type: ignore[no-any-return]


def fields(btf: Btf, struct_name: str, value: bytes) -> SimpleNamespace:
    """Return a struct's members as numbers, and as bytes where they are arrays or structs."""
    found = btf.find(struct_name, "struct")
    assert found is not None
    parts = {m.name: value[m.offset : m.offset + m.size] for m in btf.members(found.id)}
    number = {m.name for m in btf.members(found.id) if btf.resolve(m.type_id).kind == "int"}
    return SimpleNamespace(**{k: int.from_bytes(v, "little") if k in number else v for k, v in parts.items()})


@dataclass(frozen=True)
class Parsed:
    """What the parser answered (1: TCP) and what it found; reasons by name."""

    tcp: bool
    found: SimpleNamespace
    packet: bytes

    @property
    def reason(self) -> str:
        """Why the packet was left alone, or may not be changed."""
        return reasons.name(self.found.no_modify)

    @property
    def subtypes(self) -> set[int]:
        """Subtypes of the valid MPTCP options."""
        return {n for n in range(16) if self.found.subtypes >> n & 1}


def config(needs: int, link: Link, hook: int = 0) -> bytes:
    """Return a ``struct emptcp_parse_config``."""
    return struct.pack("<IHBBI", needs, 14 if link == "ethernet" else 0, hook, 0, 0)


@dataclass(frozen=True)
class Parser:
    """The parser of one back-end."""

    loaded: LoadedObject
    backend: Backend

    def __call__(
        self,
        packet: bytes,
        *,
        needs: int = NEED_ALL,
        link: Link = "ethernet",
        ctx: bytes | None = None,
        thorough: bool = False,
    ) -> Parsed:
        """Parse one packet; ``thorough``: taking nothing for usual."""
        self.loaded.maps["config"].update(FIRST, config(needs, link))
        run = self.program("thorough" if thorough else "parse").test_run(packet, ctx=ctx)
        value = self.loaded.maps["found"].lookup(FIRST)
        assert value is not None
        assert self.loaded.btf is not None
        return Parsed(run.retval == 1, fields(self.loaded.btf, "emptcp_pkt", value), run.data)

    def program(self, name: str) -> Program:
        """Return one of the object's programs for this back-end."""
        return self.loaded.programs[f"{name}_{self.backend}"]


@pytest.fixture
def parse(parse_object: LoadedObject, backend: Backend) -> Parser:
    """Parse on each back-end."""
    return Parser(parse_object, backend)


@pytest.fixture
def parse_xdp(parse_object: LoadedObject) -> Parser:
    """Parse at XDP only: for frames that a test run at TC refuses."""
    return Parser(parse_object, "xdp")


@pytest.fixture
def parse_tc(parse_object: LoadedObject) -> Parser:
    """Parse at TC only: for what only an skb has."""
    return Parser(parse_object, "tc")


@dataclass(frozen=True)
class Changed:
    """Whether a changing function did it, why not, the packet as it came out, and what is known of it."""

    done: bool
    reason: str
    packet: bytes
    found: SimpleNamespace


@dataclass(frozen=True)
class Changer:
    """The changing functions of one back-end."""

    loaded: LoadedObject
    backend: Backend

    def __call__(
        self,
        packet: bytes,
        job: str,
        *,
        number: int = 0,
        length: int = 0,
        data: bytes = b"",
        unsafe: bool = False,
        scale: tuple[int, int] = (0, 0),
        link: Link = "ethernet",
        tag: int = 0,
        ctx: bytes | None = None,
    ) -> Changed:
        """Parse a packet and do one job on it; ``tag``: push a VLAN tag into the skb first (TC)."""
        order = config(NEED_ALL, link)
        order += struct.pack("<IIIII2B", JOBS.index(job), number, length or len(data), unsafe, tag, *scale)
        self.loaded.maps["order"].update(FIRST, (order + data.ljust(40, b"\0")).ljust(76, b"\0"))
        name = f"change_tagged_{self.backend}" if tag else f"change_{self.backend}"
        run = self.loaded.programs[name].test_run(packet, ctx=ctx)
        value = self.loaded.maps["outcome"].lookup(FIRST)
        assert value is not None
        assert self.loaded.btf is not None
        outcome = fields(self.loaded.btf, "outcome", value)
        found = fields(self.loaded.btf, "emptcp_pkt", outcome.found)
        return Changed(bool(outcome.done), reasons.name(found.reason), run.data, found)


@pytest.fixture
def change(change_object: LoadedObject, backend: Backend) -> Changer:
    """Change packets on each back-end."""
    return Changer(change_object, backend)


@pytest.fixture(scope="session")
def changers(change_object: LoadedObject) -> tuple[Changer, Changer]:
    """Both back-ends, to compare them."""
    return Changer(change_object, "xdp"), Changer(change_object, "tc")


@pytest.fixture
def change_tc(change_object: LoadedObject) -> Changer:
    """Change packets at TC only."""
    return Changer(change_object, "tc")


def sk_buff(**values: int) -> bytes:
    """Return a ``struct __sk_buff`` for a test run, zero but for a few members."""
    offsets = {"mark": 8, "ifindex": 40, "gso_segs": 164, "gso_size": 176}
    ctx = bytearray(192)
    for name, value in values.items():
        struct.pack_into("<I", ctx, offsets[name], value)
    return bytes(ctx)


@pytest.fixture(scope="session")
def gso_ctx() -> bytes:
    """A context that makes a test run's skb a GSO packet of two segments."""
    return sk_buff(gso_segs=2, gso_size=500)
