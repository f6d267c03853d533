# SPDX-License-Identifier: Apache-2.0
"""The bytes of an object file, as every kernel takes its types.

A constant that has no name, such as a string within a function, makes clang describe a section ``.rodata``
without any variable. Kernels before 5.12 refuse such types, libbpf then goes on without types at all, and
nobody can tell functions apart. So these sections are described as ``const void``, which says as little.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path

from emptcp.pybpf.btf import KINDS, empty_sections
from emptcp.pybpf.elf import ObjectSpec

# struct btf_type: no name, no members, of type 0
_CONST_VOID = struct.pack("<III", 0, KINDS.index("const") << 24, 0)


def read(path: Path) -> bytes:
    """Return an object file's bytes; they are kept as long as the file is the same.

    :raises BpfError: there is no such file, it is no BPF object, or its types are broken.
    """
    return _described(ObjectSpec.read(path))


@lru_cache(maxsize=64)
def _described(spec: ObjectSpec) -> bytes:
    types = spec.section(".BTF") or b""
    image = bytearray(spec.content)
    start = image.find(types)
    for offset in empty_sections(types) if types else ():
        image[start + offset : start + offset + len(_CONST_VOID)] = _CONST_VOID
    return bytes(image)
