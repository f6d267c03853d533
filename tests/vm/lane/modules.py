# SPDX-License-Identifier: Apache-2.0
"""Choose kernel modules and bring them into an order in which they load."""

from __future__ import annotations

import io
import lzma
from collections.abc import Callable, Iterable
from pathlib import Path

WANTED = (
    "veth",
    "tun",
    "dummy",
    "bridge",
    "8021q",
    "sch_ingress",
    "cls_bpf",
    "sch_netem",
    "sch_tbf",
    "sch_fq",
    "tcp_diag",
    "mptcp_diag",
)
"""What the kernel would load by itself, had it a modprobe. One that is built in has no file."""


def in_order(wanted: Iterable[str], dependencies: Callable[[str], list[str]]) -> list[str]:
    """Return the wanted names and all they depend on, each behind its dependencies."""
    order: list[str] = []
    for name in wanted:
        needed = in_order(dependencies(name), dependencies)
        order += [one for one in (*needed, name) if one not in order]
    return order


def chosen(folder: Path) -> list[tuple[str, bytes]]:
    """Return name and contents of the wanted modules below ``folder``, in loading order."""
    paths = {_name(path): path for path in sorted(folder.rglob("*.ko*"))}
    contents: dict[str, bytes] = {}

    def dependencies(name: str) -> list[str]:
        contents[name] = _read(paths[name])
        return [one for one in _depends(contents[name]) if one in paths]

    order = in_order([name for name in WANTED if name in paths], dependencies)
    return [(name, contents[name]) for name in order]


def _name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def _read(path: Path) -> bytes:
    raw = path.read_bytes()
    return lzma.decompress(raw) if path.suffix == ".xz" else raw


def _depends(module: bytes) -> list[str]:
    """Return the names in a module's ``depends=``."""
    from elftools.elf.elffile import ELFFile

    section = ELFFile(io.BytesIO(module)).get_section_by_name(".modinfo")
    told = section.data().split(b"\0") if section is not None else []
    line = next((entry for entry in told if entry.startswith(b"depends=")), b"depends=")
    return [name.replace("-", "_") for name in line.decode()[len("depends=") :].split(",") if name]
