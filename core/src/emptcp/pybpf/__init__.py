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
    from emptcp.pybpf.errors import BpfError as BpfError
    from emptcp.pybpf.errors import MissingFeature as MissingFeature
    from emptcp.pybpf.fragments import CapturedObject as CapturedObject
    from emptcp.pybpf.fragments import Fragment as Fragment
    from emptcp.pybpf.fragments import Line as Line
    from emptcp.pybpf.fragments import capture as capture
    from emptcp.pybpf.libbpf import Library as Library
    from emptcp.pybpf.libbpf import library as library
    from emptcp.pybpf.link import Link as Link
    from emptcp.pybpf.link import LinkInfo as LinkInfo
    from emptcp.pybpf.loaded_btf import LoadedBtf as LoadedBtf
    from emptcp.pybpf.loaded_btf import load_btf as load_btf
    from emptcp.pybpf.map import Map as Map
    from emptcp.pybpf.map import MapInfo as MapInfo
    from emptcp.pybpf.object import LoadedObject as LoadedObject
    from emptcp.pybpf.object import load_object as load_object
    from emptcp.pybpf.program import Program as Program
    from emptcp.pybpf.program import ProgramInfo as ProgramInfo
    from emptcp.pybpf.program import TestRun as TestRun
    from emptcp.pybpf.program import load_program as load_program
    from emptcp.pybpf.ringbuf import RingBuffer as RingBuffer
    from emptcp.pybpf.verifier import VerifierError as VerifierError

_HOME = {
    "BpfError": "errors", "Btf": "btf", "CapturedObject": "fragments", "Fragment": "fragments",
    "Library": "libbpf", "Line": "fragments", "LoadedBtf": "loaded_btf", "LoadedObject": "object",
    "Map": "map", "MapInfo": "map", "Member": "btf", "MissingFeature": "errors", "Program": "program",
    "ProgramInfo": "program", "Link": "link", "LinkInfo": "link", "RingBuffer": "ringbuf",
    "Prototype": "btf", "TestRun": "program", "VerifierError": "verifier", "capture": "fragments",
    "library": "libbpf", "load_btf": "loaded_btf", "load_object": "object", "load_program": "program",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'emptcp.pybpf' has no attribute '{name}'")
    return getattr(import_module(f"emptcp.pybpf.{_HOME[name]}"), name)
