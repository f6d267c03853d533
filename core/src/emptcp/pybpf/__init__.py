# SPDX-License-Identifier: Apache-2.0
"""libbpf for emptcp: objects, maps, programs, links, probes. Imports nothing else of emptcp.

Everything public stands here and is imported at first use, so that ``import emptcp.pybpf`` costs next to
nothing; libbpf itself is opened by the first call that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.pybpf.btf import Btf as Btf
    from emptcp.pybpf.btf import Member as Member
    from emptcp.pybpf.btf import Prototype as Prototype
    from emptcp.pybpf.cpus import cpu_ids as cpu_ids
    from emptcp.pybpf.elf import MapSpec as MapSpec
    from emptcp.pybpf.elf import ObjectSpec as ObjectSpec
    from emptcp.pybpf.elf import ProgramSpec as ProgramSpec
    from emptcp.pybpf.errors import BpfError as BpfError
    from emptcp.pybpf.errors import MissingFeature as MissingFeature
    from emptcp.pybpf.fragments import CapturedObject as CapturedObject
    from emptcp.pybpf.fragments import Fragment as Fragment
    from emptcp.pybpf.fragments import capture as capture
    from emptcp.pybpf.libbpf import Library as Library
    from emptcp.pybpf.libbpf import library as library
    from emptcp.pybpf.likeness import MapMismatch as MapMismatch
    from emptcp.pybpf.likeness import Shape as Shape
    from emptcp.pybpf.link import Link as Link
    from emptcp.pybpf.link import LinkInfo as LinkInfo
    from emptcp.pybpf.loaded_btf import LoadedBtf as LoadedBtf
    from emptcp.pybpf.loaded_btf import load_btf as load_btf
    from emptcp.pybpf.map import BPF_ANY as BPF_ANY
    from emptcp.pybpf.map import BPF_EXIST as BPF_EXIST
    from emptcp.pybpf.map import BPF_F_MMAPABLE as BPF_F_MMAPABLE
    from emptcp.pybpf.map import BPF_F_NO_PREALLOC as BPF_F_NO_PREALLOC
    from emptcp.pybpf.map import BPF_F_RDONLY_PROG as BPF_F_RDONLY_PROG
    from emptcp.pybpf.map import BPF_NOEXIST as BPF_NOEXIST
    from emptcp.pybpf.map import Map as Map
    from emptcp.pybpf.map import MapInfo as MapInfo
    from emptcp.pybpf.object import LoadedObject as LoadedObject
    from emptcp.pybpf.object import load_object as load_object
    from emptcp.pybpf.program import Program as Program
    from emptcp.pybpf.program import ProgramInfo as ProgramInfo
    from emptcp.pybpf.program import Statistics as Statistics
    from emptcp.pybpf.program import TestRun as TestRun
    from emptcp.pybpf.program import load_program as load_program
    from emptcp.pybpf.ringbuf import RingBuffer as RingBuffer
    from emptcp.pybpf.verifier import Explanation as Explanation
    from emptcp.pybpf.verifier import Line as Line
    from emptcp.pybpf.verifier import VerifierError as VerifierError

_HOME = {
    "btf": ("Btf", "Member", "Prototype"),
    "cpus": ("cpu_ids",),
    "elf": ("MapSpec", "ObjectSpec", "ProgramSpec"),
    "errors": ("BpfError", "MissingFeature"),
    "fragments": ("CapturedObject", "Fragment", "capture"),
    "libbpf": ("Library", "library"),
    "likeness": ("MapMismatch", "Shape"),
    "link": ("Link", "LinkInfo"),
    "loaded_btf": ("LoadedBtf", "load_btf"),
    "map": (
        "BPF_ANY", "BPF_EXIST", "BPF_F_MMAPABLE", "BPF_F_NO_PREALLOC", "BPF_F_RDONLY_PROG", "BPF_NOEXIST",
        "Map", "MapInfo",
    ),
    "object": ("LoadedObject", "load_object"),
    "program": ("Program", "ProgramInfo", "Statistics", "TestRun", "load_program"),
    "ringbuf": ("RingBuffer",),
    "verifier": ("Explanation", "Line", "VerifierError"),
}  # fmt: skip
_MODULES = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'emptcp.pybpf' has no attribute '{name}'")
    found = getattr(import_module(f"emptcp.pybpf.{_MODULES[name]}"), name)
    globals()[name] = found
    return found
