# SPDX-License-Identifier: Apache-2.0
"""Objects on disk, opened for joining: core's own and the plugins', and the code of their fragments."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Self

from emptcp import pybpf
from emptcp.chain import lending
from emptcp.chain.code import Code, Function
from emptcp.chain.instructions import decode
from emptcp.chain.joining import PacketLayout
from emptcp.chain.plan import FragmentRef
from emptcp.chain.shared import HEAD_BYTES, SharedMaps
from emptcp.errors import EmptcpError
from emptcp.plugins import layout as layouts
from emptcp.plugins.versions import HEADERS_WITH_TCP

CORE_BEGIN = FragmentRef("core", "", "core_begin")
CORE_BEGIN_LEAN = FragmentRef("core", "", "core_begin_lean")
CORE_FLOW = FragmentRef("core", "", "core_flow")
CORE_FINISH = FragmentRef("core", "", "core_finish")
CORE_PUT_HEADER = FragmentRef("core", "", "core_put_header")
CORE_TAKE_HEADER = FragmentRef("core", "", "core_take_header")

_NEED_OPTIONS, _NEED_TCP, _NEED_REST = 1, 8, 16
"""``enum emptcp_need`` (emptcp/glance.h)."""

LEAN_NEEDS = _NEED_TCP
"""All that stages may need where :data:`CORE_BEGIN_LEAN` parses, behind Ethernet."""


@cache
def core_object(name: str = "core") -> Path:
    """Return the path of an object of core's own."""
    path = Path(str(files("emptcp.programs") / f"{name}.bpf.o"))
    if not path.exists():
        raise EmptcpError(
            f"emptcp's own BPF object {path} is missing",
            fix="Install emptcp from a wheel, or run `make setup`.",
        )
    return path


class Objects:
    """Opened objects over one set of shared maps. Keep it open until the joined programs are loaded."""

    def __init__(self, shared: SharedMaps) -> None:
        self.shared = shared
        self._captured: dict[tuple[str, str, str], pybpf.CapturedObject] = {}

    def close(self) -> None:
        """Close the objects; maps that are pinned or used by a program stay."""
        for captured in self._captured.values():
            captured.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @cached_property
    def layout(self) -> PacketLayout:
        """Offsets in ``struct emptcp_pkt`` and ``struct emptcp_flow`` as core was compiled."""
        packet, flow = self._members("emptcp_pkt"), self._members("emptcp_flow")
        names = (
            "flags l3 payload payload_len reason redirect key entry length found_key parameters chain kept"
        )
        offsets = {name: packet[name] for name in names.split()}
        return PacketLayout(
            **offsets, flow_known=flow["known"], flow_slots=HEAD_BYTES, on_demand=_on_demand(packet)
        )

    @cached_property
    def packet_size(self) -> int:
        """Bytes of ``struct emptcp_pkt``."""
        found = self._types.find("emptcp_pkt", "struct")
        assert found is not None
        return self._types.size(found.id)

    def packet(self, hook: str, backend: str) -> pybpf.Map:
        """Return the parsed-packet map of a hook and back-end."""
        return self.shared.packet(hook, backend, self.packet_size)

    def code(self, fragment: FragmentRef, hook: str, backend: str) -> Code:
        """Return a fragment's code for a hook and back-end."""
        captured = self._capture(fragment, hook, backend)
        section = f"emptcp.{backend}/{fragment.name}"
        if section not in captured.fragments:
            raise EmptcpError(
                f"plugin '{fragment.plugin}' has no code for back-end '{backend}' "
                f"({captured.path} lacks {section})",
                fix="Choose another back-end for this policy.",
            )
        return _code(captured, captured.fragments[section])

    def is_older(self, fragment: FragmentRef) -> bool:
        """Return whether a fragment was compiled with headers that look for TCP's header in the packet."""
        abi = layouts.read(Path(fragment.object)).abi.get(fragment.name)
        return abi is not None and abi.headers < HEADERS_WITH_TCP

    def map(self, name: str) -> pybpf.Map:
        """Return a map of the objects opened so far, by name. Raises :class:`LookupError`."""
        found = [one.maps[name] for one in self._captured.values() if name in one.maps]
        return found[0]

    @cached_property
    def _types(self) -> pybpf.Btf:
        types: pybpf.Btf = pybpf.ObjectSpec.read(core_object()).btf
        return types

    def _members(self, struct: str) -> dict[str, int]:
        found = self._types.find(struct, "struct")
        if found is None:
            raise EmptcpError(f"{core_object()} lacks struct {struct}", fix="Run `make setup` again.")
        return {member.name: member.offset for member in self._types.members(found.id)}

    def _capture(self, fragment: FragmentRef, hook: str, backend: str) -> pybpf.CapturedObject:
        """Open an object once per hook and back-end: each has its own map of the parsed packet."""
        path = fragment.object or str(core_object())
        key = (path, hook, backend)
        if key not in self._captured:
            cores = self._core_maps(pybpf.ObjectSpec.read(path).maps, hook, backend)
            self._captured[key] = lending.opened(
                self.shared,
                fragment,
                path,
                lambda existing, borrowed: pybpf.capture(path, cores, existing, borrowed, backend),
            )
        return self._captured[key]

    def _core_maps(self, names: Collection[str], hook: str, backend: str) -> dict[str, pybpf.Map]:
        makers = {"emptcp_packet": lambda: self.packet(hook, backend), **self.shared.cores()}
        return {name: make() for name, make in makers.items() if name in names}


def _on_demand(packet: Mapping[str, int]) -> dict[int, tuple[range, ...]]:
    """Return which members are written on demand, each from its offset up to that of another one."""

    def members(*spans: tuple[str, str]) -> tuple[range, ...]:
        return tuple(range(packet[first], packet[behind]) for first, behind in spans)

    return {
        _NEED_OPTIONS: members(("at", "redirect"), ("block", "cursor")),
        _NEED_TCP: members(("tcp", "written")),
        _NEED_REST: members(
            ("size", "backend"),
            ("flags", "l3"),
            ("payload", "no_modify"),
            ("scratch", "block"),
            ("netns", "sum"),
        ),
    }


def _code(captured: pybpf.CapturedObject, fragment: pybpf.Fragment) -> Code:
    starts = [offset for offset, _ in fragment.functions]
    ends = [*starts[1:], fragment.count]
    functions = (
        _function(captured.btf, kind, start, end)
        for (start, kind), end in zip(fragment.functions, ends, strict=True)
    )
    return _decoded(fragment, tuple(functions), captured.btf)


@lru_cache(maxsize=64)
def _decoded(fragment: pybpf.Fragment, functions: tuple[Function, ...], _types: pybpf.Btf) -> Code:
    """Decode a fragment, and find out about its code, once for those that a process joins again and again."""
    return Code(tuple(decode(fragment.instructions)), functions, fragment.lines)


def _function(types: pybpf.Btf, kind: int, start: int, end: int) -> Function:
    found = types.type(kind)
    arguments = len(types.prototype(kind).arguments)
    return Function(found.name, start, end, arguments, is_global=found.vlen == 1)
