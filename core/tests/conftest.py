# SPDX-License-Identifier: Apache-2.0
"""What tests of objects share: a compiler that gives a BPF object for a piece of C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emptcp_sdk.compiler import compile_source, find_compiler

CompileBpf = Callable[..., Path]


@pytest.fixture(scope="session")
def compile_bpf(tmp_path_factory: pytest.TempPathFactory) -> CompileBpf:
    """Return a function (C text, name) -> object file, compiled as plugins are.

    The text begins after the includes of the headers' base (types, helpers, maps). Arguments may stay unused.
    """
    compiler = find_compiler()
    before = (
        '#pragma clang diagnostic ignored "-Wunused-parameter"\n'
        "#include <emptcp/uapi.h>\n"
        "#include <emptcp/bpf.h>\n"
    )
    folder = tmp_path_factory.mktemp("objects")

    def compiled(text: str, name: str) -> Path:
        source = folder / f"{name}.bpf.c"
        source.write_text(f"{before}{text}\n", encoding="utf-8")
        output = folder / f"{name}.bpf.o"
        compile_source(compiler, source, output)
        return output

    return compiled
