# SPDX-License-Identifier: Apache-2.0
"""BTF for joined programs: just enough types for func_info and line_info.

Layout: Documentation/bpf/btf.rst. The kernel checks prototypes of global functions only; the context
argument is recognised by the name of the struct it points to (``btf_get_prog_ctx_type``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

_MAGIC = 0xEB9F
_INT, _PTR, _STRUCT, _FUNC, _FUNC_PROTO = 1, 2, 4, 12, 13
CONTEXT = {"xdp": "xdp_md", "tc": "__sk_buff"}
"""Name of the context struct of each back-end's programs."""


class TypeInfo:
    """A BTF blob under construction; type ids are handed out from 1."""

    def __init__(self, backend: str) -> None:
        self._strings = bytearray(b"\0")
        self._known: dict[str, int] = {"": 0}
        self._types: list[bytes] = []
        self.integer = self._add("int", _INT, 0, 4, struct.pack("<I", 1 << 24 | 32))
        context = self._add(CONTEXT[backend], _STRUCT, 0, 0)
        self.context = self._add("", _PTR, 0, context)

    def string(self, text: str) -> int:
        """Return the offset of ``text`` in the string section, added on first use."""
        if text not in self._known:
            self._known[text] = len(self._strings)
            self._strings += text.encode() + b"\0"
        return self._known[text]

    def strings(self, texts: Iterable[str]) -> Mapping[str, int]:
        """Return the offsets of these texts, and of those of before."""
        for text in dict.fromkeys(texts):
            self.string(text)
        return self._known

    def function(self, name: str, arguments: int, is_global: bool) -> int:
        """Add ``int name(CTX *, int, ..)`` and return the function's type id."""
        types: Sequence[int] = [self.context, *[self.integer] * (arguments - 1)][:arguments]
        fields = b"".join(struct.pack("<II", self.string(f"a{n}"), kind) for n, kind in enumerate(types))
        prototype = self._add("", _FUNC_PROTO, len(types), self.integer, fields)
        return self._add(name, _FUNC, int(is_global), prototype)

    def encode(self) -> bytes:
        """Return the blob for BPF_BTF_LOAD."""
        types = b"".join(self._types)
        header = struct.pack("<HBBIIIII", _MAGIC, 1, 0, 24, 0, len(types), len(types), len(self._strings))
        return header + types + bytes(self._strings)

    def _add(self, name: str, kind: int, vlen: int, size_or_type: int, extra: bytes = b"") -> int:
        self._types.append(struct.pack("<III", self.string(name), kind << 24 | vlen, size_or_type) + extra)
        return len(self._types)
