# SPDX-License-Identifier: Apache-2.0
"""Import plugins from their sources alone, never from bytecode in ``__pycache__``.

Digests leave ``__pycache__`` out, since the interpreter writes there. Python itself would run what lies there
without a look at the source where the file says so (PEP 552: an unchecked hash), or where size and time fit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType


class _Loader(SourceFileLoader):
    """Compiles the source each time; a plugin's modules are few and small."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Finder:
    """Finds what the others find, and changes how it is loaded, in some top-level packages only."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self.names:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((one for one in found if one is not None), None)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
            spec.cached = None
        return spec


_finder = _Finder()


def always_compile(names: Iterable[str]) -> None:
    """From now on import these top-level packages, and all below them, from their sources alone."""
    _finder.names.update(names)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
